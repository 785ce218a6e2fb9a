//! Numbers for people.

use super::plan::Quantity;
use super::targets::Bound;
use crate::table;

/// `1.23 ms`, `94.5 MB`
pub(crate) fn quantity(quantity: Quantity, value: f64) -> String {
    match quantity {
        Quantity::Time => seconds(value),
        Quantity::Memory => table::size(value as u64),
    }
}

/// Three digits, and the unit that suits them.
pub(crate) fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "µs"),
        s => (s * 1e9, "ns"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits: `0.123`, `1.23`, `12.3`, `123`.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// `94 %`
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `at least 6`, `at most 1.3`
pub(crate) fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(least) => format!("at least {least}"),
        Bound::AtMost(most) => format!("at most {most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(seconds(12.345), "12.3 s");
        assert_eq!(seconds(0.001_234), "1.23 ms");
        assert_eq!(seconds(2.5e-7), "250 ns");
        assert_eq!(quantity(Quantity::Memory, 94.5e6), "94.5 MB");
        assert_eq!(digits(0.9), "0.900");
        assert_eq!(percent(0.904), "90 %");
        assert_eq!(bound(Bound::AtLeast(6.0)), "at least 6");
    }
}
