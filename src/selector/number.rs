//! Numbers, by Java's promotion: exact ones have 64 bits, and are calculated with as doubles where those do not suffice or the
//! other operand is approximate.

use std::cmp::Ordering;

/// A number. An approximate one is finite.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Exact(i64),
    Approximate(f64),
}

use Number::{Approximate, Exact};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Number {
    /// Digits, with sign, point and exponent where there are some; nothing else around or between them. `None` for what is
    /// no number or is beyond a double.
    pub(super) fn read(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        // The words for infinity and for what is no number are none here.
        if !unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
            return None;
        }
        if let Ok(exact) = text.parse() {
            return Some(Exact(exact));
        }
        Self::approximate(text.parse().ok()?)
    }

    fn approximate(value: f64) -> Option<Self> {
        // There is one zero, so that equal numbers are printed alike.
        let value = if value == 0.0 { 0.0 } else { value };
        value.is_finite().then_some(Approximate(value))
    }

    pub(super) fn negate(self) -> Self {
        match self {
            Exact(value) => value.checked_neg().map_or(Approximate(-self.as_double()), Exact),
            Approximate(0.0) => self,
            Approximate(value) => Approximate(-value),
        }
    }

    fn as_double(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "Java's promotion loses it, too")]
            Exact(value) => value as f64,
            Approximate(value) => value,
        }
    }

    /// `None` for a division by zero and for what is beyond a double.
    pub(super) fn calculate(self, how: Arithmetic, other: Self) -> Option<Self> {
        if let (Exact(a), Exact(b)) = (self, other) {
            if how == Arithmetic::Divide && b == 0 {
                return None;
            }
            let exact = match how {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Subtract => a.checked_sub(b),
                Arithmetic::Multiply => a.checked_mul(b),
                Arithmetic::Divide => a.checked_div(b),
            };
            if let Some(exact) = exact {
                return Some(Exact(exact));
            }
        }
        let (a, b) = (self.as_double(), other.as_double());
        Self::approximate(match how {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide => a / b,
        })
    }

    /// By what they are worth: nothing is approximated for it.
    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Exact(a), Exact(b)) => a.cmp(&b),
            (Exact(a), Approximate(b)) => compare_mixed(a, b),
            (Approximate(a), Exact(b)) => compare_mixed(b, a).reverse(),
            (Approximate(a), Approximate(b)) => a.total_cmp(&b),
        }
    }
}

fn compare_mixed(a: i64, b: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if b >= BEYOND {
        return Ordering::Less;
    }
    if b < -BEYOND {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
    let order = a.cmp(&(whole as i64));
    order.then(0.0_f64.total_cmp(&(b - whole)))
}
