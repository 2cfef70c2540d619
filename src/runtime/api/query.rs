//! The query of a request: each value is taken by its name, and what nobody took is refused.

use crate::api::{PAGE_COUNT, PAGE_COUNT_MAX, RATE_MS_MAX, percent_decode};

use super::problem::Problem;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let parts = query
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty());
        let pairs = parts
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                decoded(name)
                    .zip(decoded(value))
                    .ok_or_else(|| Problem::bad(format!("{part} in the query is not percent-encoded UTF-8")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { pairs })
    }

    /// Every value of a name.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.pairs
            .extract_if(.., |(of, _)| of == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of a name that may stand once.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        let value = values.pop();
        if values.is_empty() {
            Ok(value)
        } else {
            Err(Problem::bad(format!("{name} stands in the query more than once")))
        }
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let value = self.text(name)?;
        value
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| Problem::bad(format!("{name}={value} in the query is not a whole number")))
            })
            .transpose()
    }

    /// The length of a page.
    pub(super) fn count(&mut self) -> Result<usize, Problem> {
        match self.number("count")?.unwrap_or(PAGE_COUNT) {
            count @ 1..=PAGE_COUNT_MAX => Ok(usize::try_from(count).expect("it is at most 1,000")),
            count => Err(Problem::bad(format!(
                "count={count} is not from 1 to {PAGE_COUNT_MAX}"
            ))),
        }
    }

    pub(super) fn rate_ms(&mut self) -> Result<Option<u64>, Problem> {
        match self.number("rate_ms")? {
            Some(ms) if !(1..=RATE_MS_MAX).contains(&ms) => Err(Problem::bad(format!(
                "rate_ms={ms} is not from 1 to {RATE_MS_MAX}"
            ))),
            ms => Ok(ms),
        }
    }

    /// Everything was taken.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad(format!("the query of this path has no {name}"))),
        }
    }
}

/// In a query, a plus stands for a space.
fn decoded(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}
