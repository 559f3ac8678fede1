//! When and how long to wait before a request is sent again. The rules are those of openai-python (`_base_client.py`).

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::{Duration, SystemTime};

/// Longest wait that a server may ask for; a server that asks for more is not waited for.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// What an answer's headers say about trying again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hint {
    /// How long the server asks to wait.
    pub after: Option<Duration>,
    /// Whether the server wants to be asked again, if it says so.
    pub should: Option<bool>,
}

impl Hint {
    /// Reads `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date, and `x-should-retry`. What cannot be
    /// read counts as absent.
    #[must_use]
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Self {
        let seconds = |text: &str| Duration::try_from_secs_f64(text.trim().parse().ok()?).ok();
        let after = header("retry-after-ms")
            .and_then(seconds)
            .map(|thousands| thousands / 1000)
            .or_else(|| {
                let text = header("retry-after")?;
                seconds(text).or_else(|| {
                    let date = httpdate::parse_http_date(text.trim()).ok()?;
                    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
                })
            });
        let should = match header("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        Self { after, should }
    }
}

/// Whether a status says that asking again may help.
#[must_use]
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 409 | 429) || status >= 500
}

/// Whether a failure below HTTP may be over at the next attempt; a wrong address or certificate stays wrong.
#[must_use]
pub fn is_passing(error: &ureq::Error) -> bool {
    match error {
        // TLS errors hide in an I/O error of the kind below.
        ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// How long to wait before retry `retry` (from 0), `None` if the server asks for more patience than there is.
///
/// Without a hint: `base * 2^retry`, at most `cap`, less a random quarter of it.
#[must_use]
pub fn delay(
    retry: u32,
    after: Option<Duration>,
    base: Duration,
    cap: Duration,
) -> Option<Duration> {
    match after {
        Some(after) if after > MAX_RETRY_AFTER => None,
        Some(after) if after > Duration::ZERO => Some(after),
        _ => {
            let backoff = base.saturating_mul(2_u32.saturating_pow(retry)).min(cap);
            Some(backoff.mul_f64(1.0 - 0.25 * jitter()))
        }
    }
}

/// A random number in `0..1`. It keeps clients that failed together from coming back together, so it must differ
/// between processes, unlike every number that a result depends on.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(headers: &[(&str, &'static str)]) -> Hint {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        Hint::read(
            |name| {
                let found = headers.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| *value)
            },
            now,
        )
    }

    #[test]
    fn the_three_forms_of_retry_after() {
        fn after(headers: &[(&str, &'static str)]) -> Option<Duration> {
            hint(headers).after
        }
        assert_eq!(after(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(
            after(&[("retry-after", " 0.5 ")]),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            after(&[("retry-after-ms", "1500"), ("retry-after", "9")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            after(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")]),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            after(&[("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT")]),
            Some(Duration::ZERO)
        );
        for nonsense in ["", "soon", "-1", "NaN", "inf", "1e99"] {
            assert_eq!(after(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn servers_may_say_whether_to_retry() {
        assert_eq!(hint(&[("x-should-retry", "true")]).should, Some(true));
        assert_eq!(hint(&[("x-should-retry", "false")]).should, Some(false));
        assert_eq!(hint(&[("x-should-retry", "maybe")]).should, None);
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(8));
        for (retry, full) in [
            (0, 0.5),
            (1, 1.0),
            (2, 2.0),
            (4, 8.0),
            (5, 8.0),
            (4000, 8.0),
        ] {
            let wait = delay(retry, None, base, cap).unwrap().as_secs_f64();
            assert!(
                wait <= full && wait >= 0.75 * full,
                "retry {retry} waits {wait}"
            );
        }
        let asked = |seconds| delay(0, Some(Duration::from_secs(seconds)), base, cap);
        assert_eq!(asked(100), Some(Duration::from_secs(100)));
        assert_eq!(asked(121), None);
        assert!(asked(0).unwrap() > Duration::ZERO);
    }

    #[test]
    fn statuses() {
        for status in [408, 409, 429, 500, 502, 503, 504, 529] {
            assert!(is_transient(status), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 422] {
            assert!(!is_transient(status), "{status}");
        }
    }
}
