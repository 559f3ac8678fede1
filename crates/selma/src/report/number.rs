//! How numbers are written.

use selma_eval::Paired;

/// What stands for a number that is missing or not finite.
const NONE: &str = "-";

/// A share as percent with one decimal: `0.8123` is "81.2".
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() {
        let rounded = (share * 1000.0).round() / 10.0;
        // Adding zero turns a negative zero into zero.
        format!("{:.1}", rounded + 0.0)
    } else {
        NONE.to_owned()
    }
}

/// A difference of shares in points with its sign: `0.034` is "+3.4", what rounds to zero is "0.0".
pub(super) fn points(difference: f64) -> String {
    if !difference.is_finite() {
        return NONE.to_owned();
    }
    let rounded = (difference * 1000.0).round() / 10.0;
    if rounded == 0.0 {
        "0.0".to_owned()
    } else {
        format!("{rounded:+.1}")
    }
}

/// A score on a scale of its own, with four decimals.
pub(super) fn score(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.4}")
    } else {
        NONE.to_owned()
    }
}

/// A difference of such scores, with its sign.
pub(super) fn signed_score(value: f64) -> String {
    if value.is_finite() {
        format!("{value:+.4}")
    } else {
        NONE.to_owned()
    }
}

/// A p-value that no line breaks: "p = 0.012", "p < 0.001".
pub(super) fn p_value(p: f64) -> String {
    if !p.is_finite() {
        format!("p {NONE}")
    } else if p < 0.001 {
        "p\u{a0}<\u{a0}0.001".to_owned()
    } else {
        format!("p\u{a0}=\u{a0}{p:.3}")
    }
}

/// A difference with its interval and p-value: "+3.4 (+1.0 to +5.8, p = 0.012)".
pub(super) fn difference(paired: &Paired) -> String {
    format!(
        "{} ({} to {}, {})",
        points(paired.difference),
        points(paired.low),
        points(paired.high),
        p_value(paired.p)
    )
}

/// A number in its shortest form: "4", "2.5".
pub(super) fn plain(value: f64) -> String {
    if value.is_finite() {
        ((value * 1000.0).round() / 1000.0 + 0.0).to_string()
    } else {
        NONE.to_owned()
    }
}

/// A number for an SVG attribute, with at most two decimals; always finite.
pub(super) fn svg(value: f64) -> String {
    let value = if value.is_finite() {
        value.clamp(-1e6, 1e6)
    } else {
        0.0
    };
    ((value * 100.0).round() / 100.0 + 0.0).to_string()
}

/// A count with a thin gap between thousands: "12 345".
pub(super) fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_minus_zero() {
        assert_eq!(percent(0.8126), "81.3");
        assert_eq!(percent(-0.0), "0.0");
        assert_eq!(percent(f64::NAN), "-");
        assert_eq!(points(0.034), "+3.4");
        assert_eq!(points(-0.0001), "0.0");
        assert_eq!(points(-0.02), "-2.0");
        assert_eq!(p_value(0.0004), "p\u{a0}<\u{a0}0.001");
        assert_eq!(p_value(0.0123), "p\u{a0}=\u{a0}0.012");
        assert_eq!(plain(4.0), "4");
        assert_eq!(plain(2.5), "2.5");
        assert_eq!(svg(-0.001), "0");
        assert_eq!(svg(f64::INFINITY), "0");
        assert_eq!(svg(1.0 / 3.0), "0.33");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
