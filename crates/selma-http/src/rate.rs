//! What an answer's headers say about the rate limits of the server.

use std::time::Duration;

use crate::retry::MAX_RETRY_AFTER;

/// How long the server wants no more requests: the longest `x-ratelimit-reset-*` of a limit of which nothing remains, for
/// requests and for tokens. At most two minutes; a longer one is left to the status 429 that will follow.
///
/// OpenAI writes durations as Go does (`6m0s`, `20ms`), others plain seconds. Azure has sent 0 and -1 for limits that it
/// does not have, so a limit that is not positive counts as absent, as does all that cannot be read.
#[must_use]
pub fn rate_pause<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let number = |name: String| header(&name).and_then(|text| text.trim().parse::<f64>().ok());
    let pause = |kind| {
        let limit = number(format!("x-ratelimit-limit-{kind}"));
        let remaining = number(format!("x-ratelimit-remaining-{kind}"))?;
        if remaining != 0.0 || limit.is_some_and(|limit| limit <= 0.0) {
            return None;
        }
        header(&format!("x-ratelimit-reset-{kind}")).and_then(duration)
    };
    ["requests", "tokens"]
        .into_iter()
        .filter_map(pause)
        .filter(|pause| !pause.is_zero() && *pause <= MAX_RETRY_AFTER)
        .max()
}

/// `1h2m3.5s`, `20ms` and the like, or plain seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at_checked(digits)?;
        let letters = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, next) = unit.split_at_checked(letters)?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_all_forms() {
        for (text, milliseconds) in [
            ("6m0s", Some(360_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("20ms", Some(20)),
            ("2", Some(2000)),
            (" 0.5 ", Some(500)),
            ("0s", Some(0)),
            ("500µs", Some(0)),
            ("", None),
            ("-1", None),
            ("s", None),
            ("5x", None),
            ("1.2.3s", None),
            ("m5", None),
            ("2026-10-21T07:28:00Z", None),
            ("1e300h", None),
        ] {
            let found = duration(text).map(|duration| duration.as_millis());
            assert_eq!(found, milliseconds, "{text}");
        }
    }

    #[test]
    fn only_a_used_up_limit_is_waited_for() {
        fn pause(headers: &[(&str, &'static str)]) -> Option<Duration> {
            rate_pause(|name| {
                let found = headers.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| *value)
            })
        }
        let reset = ("x-ratelimit-reset-requests", "2s");
        assert_eq!(
            pause(&[("x-ratelimit-remaining-requests", "0"), reset]),
            Some(Duration::from_secs(2))
        );
        assert_eq!(
            pause(&[
                ("x-ratelimit-remaining-requests", "0"),
                reset,
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1m30s"),
            ]),
            Some(Duration::from_secs(90))
        );
        for remaining in ["1", "-1", "", "none"] {
            assert_eq!(
                pause(&[("x-ratelimit-remaining-requests", remaining), reset]),
                None,
                "{remaining}"
            );
        }
        let used_up = ("x-ratelimit-remaining-requests", "0");
        // As Azure has sent it.
        for limit in ["0", "-1"] {
            assert_eq!(
                pause(&[("x-ratelimit-limit-requests", limit), used_up, reset]),
                None
            );
        }
        for reset in ["0s", "6m0s", "soon"] {
            assert_eq!(
                pause(&[used_up, ("x-ratelimit-reset-requests", reset)]),
                None
            );
        }
        assert_eq!(pause(&[used_up]), None);
    }
}
