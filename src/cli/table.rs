//! Rows in columns: as wide as the terminal, in colour there, and whole and plain elsewhere.

use std::io::{self, IsTerminal, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::show::bytes_for_people;

/// For whom something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Columns of the terminal; without one, any number.
    pub(super) width: Option<usize>,
    /// Rows of the terminal.
    pub(super) height: Option<usize>,
    /// Somebody looks at it, and sizes are rounded.
    pub(super) people: bool,
    colour: bool,
}

/// What the first column keeps when others still fit beside it.
const NAME_WIDTH: usize = 24;
/// What it keeps in any case.
const NAME_WIDTH_MIN: usize = 8;

/// The column whose cells are a reason to look closer.
pub(super) const FLAGS: &str = "FLAGS";

impl Look {
    /// Of standard output as it is.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let people = stdout.is_terminal();
        let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|_| people);
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // A terminal that does not know its size says 0.
        let known = |cells: u16| Some(usize::from(cells)).filter(|cells| *cells > 0);
        Self {
            width: size.and_then(|size| known(size.ws_col)),
            height: size.and_then(|size| known(size.ws_row)),
            people,
            colour: people && !dumb && unset("NO_COLOR"),
        }
    }

    /// Bytes, rounded for people.
    pub(super) fn bytes(self, bytes: u64) -> String {
        if self.people {
            bytes_for_people(bytes)
        } else {
            bytes.to_string()
        }
    }

    /// What stands out.
    pub(super) fn bold(self, text: &str) -> String {
        self.painted("1", text)
    }

    /// What is not as it should be.
    pub(super) fn warning(self, text: &str) -> String {
        self.painted("33", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A line no longer than the terminal is wide.
    pub(super) fn cut(self, line: &str) -> String {
        match self.width {
            Some(width) => shortened(line, width),
            None => line.to_owned(),
        }
    }
}

/// Writes rows in columns, the first row being their names: the first column to the left, the others to the right. A column
/// without anything in it is left out. Where the terminal is too narrow, the first column is shortened and the last
/// ones are left out.
pub(super) fn table<const N: usize>(out: &mut dyn Write, look: Look, rows: &[[String; N]]) -> io::Result<()> {
    let Some((head, body)) = rows.split_first() else {
        return Ok(());
    };
    let mut columns: Vec<(usize, &str, usize)> = Vec::new();
    for (at, name) in head.iter().enumerate() {
        let cells = || body.iter().filter_map(|row| row.get(at));
        if at == 0 || cells().any(|cell| !cell.is_empty()) {
            let width = cells().chain([name]).map(|cell| cell.width()).max();
            columns.push((at, name, width.unwrap_or_default()));
        }
    }
    if let Some(width) = look.width {
        fit(&mut columns, width);
    }
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for &(at, name, width) in &columns {
            let cell = row.get(at).map(|cell| shortened(cell, width)).unwrap_or_default();
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let cell = match number {
                0 => look.bold(&cell),
                _ if name == FLAGS && !cell.is_empty() => look.warning(&cell),
                _ => cell,
            };
            match at {
                0 => line.extend([cell, padding]),
                _ => line.extend(["  ".to_owned(), padding, cell]),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Shortens the first column and leaves out the last ones until the others fit.
fn fit(columns: &mut Vec<(usize, &str, usize)>, width: usize) {
    loop {
        let others: usize = columns.iter().skip(1).map(|(_, _, width)| width + 2).sum();
        let room = width.saturating_sub(others);
        let count = columns.len();
        let Some((_, _, first)) = columns.first_mut() else {
            return;
        };
        let least = if count > 2 { NAME_WIDTH } else { NAME_WIDTH_MIN };
        if room >= least.min(*first) || count == 1 {
            *first = room.max(1).min(*first);
            return;
        }
        columns.pop();
    }
}

/// The beginning of a text that has room in so many columns of a terminal; some characters take two.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        let Some(rest) = left.checked_sub(c.width().unwrap_or_default()) else {
            break;
        };
        left = rest;
        short.push(c);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(width: Option<usize>, colour: bool, rows: &[[&str; 4]]) -> Vec<String> {
        let look = Look {
            width,
            height: None,
            people: false,
            colour,
        };
        let rows: Vec<[String; 4]> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        let mut out = Vec::new();
        table(&mut out, look, &rows).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    const ROWS: &[[&str; 4]] = &[
        ["QUEUE", "FLAGS", "DEPTH", "NONE"],
        ["ä", "paused", "12345", ""],
        ["a-name-that-is-rather-long-for-a-queue", "", "1", ""],
    ];

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        assert_eq!(
            printed(None, false, ROWS),
            [
                "QUEUE                                    FLAGS  DEPTH",
                "ä                                       paused  12345",
                "a-name-that-is-rather-long-for-a-queue              1",
            ]
        );
    }

    #[test]
    fn a_table_fits_the_terminal() {
        assert_eq!(
            printed(Some(40), false, ROWS),
            [
                "QUEUE                       FLAGS  DEPTH",
                "ä                          paused  12345",
                "a-name-that-is-rather-lo…              1",
            ]
        );
        for width in 1..60 {
            for line in printed(Some(width), false, ROWS) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        assert_eq!(
            printed(Some(20), false, ROWS),
            ["QUEUE          FLAGS", "ä             paused", "a-name-that…"]
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        const WIDE: &[[&str; 4]] = &[
            ["QUEUE", "A", "B", ""],
            ["漢字の行列", "1", "2", ""],
            ["e\u{301}", "1", "2", ""],
        ];
        assert_eq!(
            printed(None, false, WIDE),
            ["QUEUE       A  B", "漢字の行列  1  2", "e\u{301}           1  2"]
        );
        assert_eq!(
            printed(Some(12), false, WIDE),
            ["QUEUE      A", "漢字の行…  1", "e\u{301}          1"]
        );
        assert_eq!(shortened("漢字", 3), "漢…");
        assert_eq!(shortened("漢字", 2), "…");
    }

    #[test]
    fn colour_marks_names_and_flags() {
        assert_eq!(
            printed(None, true, &ROWS[..2]),
            [
                "\x1b[1mQUEUE\x1b[0m   \x1b[1mFLAGS\x1b[0m  \x1b[1mDEPTH\x1b[0m",
                "ä      \x1b[33mpaused\x1b[0m  12345",
            ]
        );
    }
}
