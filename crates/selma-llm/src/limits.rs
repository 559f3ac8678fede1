//! Not asking faster than a server allows: [`RateLimits`].

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How fast a client may ask. Requests wait for their turn; nothing is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Most requests a minute, further attempts included. They are spread evenly over the minute. Default: no limit.
    pub requests_per_minute: Option<f64>,
    /// Most tokens of requests and answers a minute. As an answer's tokens are known only afterwards, a long one is made up
    /// for by a longer wait. Default: no limit.
    pub tokens_per_minute: Option<f64>,
}

/// Says when a request may be sent. All times come from the caller.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    not_before: Instant,
}

impl Limiter {
    pub(crate) fn new(limits: &RateLimits, now: Instant) -> Self {
        let per_second = |per_minute: Option<f64>| per_minute.map(|limit| limit / 60.0);
        Self {
            // One at a time, or what one second brings: what is more may be refused by a server that looks at seconds.
            requests: per_second(limits.requests_per_minute)
                .map(|rate| Bucket::new(rate, 1.0, now)),
            tokens: per_second(limits.tokens_per_minute).map(|rate| Bucket::new(rate, rate, now)),
            not_before: now,
        }
    }

    /// Enters a request of about this many tokens, and returns how long to wait before it is sent.
    pub(crate) fn admit(&mut self, tokens: u64, now: Instant) -> Duration {
        // A request is paid for before it is sent, its tokens afterwards: none may be larger than the bucket.
        let turn = match &mut self.requests {
            Some(bucket) => {
                bucket.take(1.0, now);
                bucket.debt(now)
            }
            None => Duration::ZERO,
        };
        let debt = match &mut self.tokens {
            Some(bucket) => {
                let debt = bucket.debt(now);
                bucket.take(tokens as f64, now);
                debt
            }
            None => Duration::ZERO,
        };
        let pause = self.not_before.saturating_duration_since(now);
        turn.max(debt).max(pause)
    }

    /// Corrects the tokens of a request that was entered with `expected` and used `used`.
    pub(crate) fn settle(&mut self, expected: u64, used: u64, now: Instant) {
        if let Some(bucket) = &mut self.tokens {
            bucket.take(used as f64 - expected as f64, now);
        }
    }

    /// Sends nothing for this long.
    pub(crate) fn pause(&mut self, pause: Duration, now: Instant) {
        if let Some(until) = now.checked_add(pause) {
            self.not_before = self.not_before.max(until);
        }
    }
}

/// A token bucket that may go into debt.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: f64, capacity: f64, now: Instant) -> Self {
        Self {
            per_second,
            capacity,
            level: capacity,
            at: now,
        }
    }

    fn take(&mut self, amount: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.per_second).min(self.capacity) - amount;
    }

    /// How long until the level is not negative.
    fn debt(&mut self, now: Instant) -> Duration {
        self.take(0.0, now);
        Duration::try_from_secs_f64(-self.level / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(requests: Option<f64>, tokens: Option<f64>) -> (Limiter, Instant) {
        let now = Instant::now();
        let limits = RateLimits {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
        };
        (Limiter::new(&limits, now), now)
    }

    fn near(wait: Duration, seconds: f64) {
        assert!(
            (wait.as_secs_f64() - seconds).abs() < 1e-6,
            "{wait:?} is not {seconds} s"
        );
    }

    #[test]
    fn requests_are_spread_over_the_minute() {
        let (mut limiter, start) = limiter(Some(30.0), None);
        near(limiter.admit(9, start), 0.0);
        near(limiter.admit(9, start), 2.0);
        near(limiter.admit(9, start + Duration::from_secs(1)), 3.0);
        // An hour of silence saves up no more than one request.
        let later = start + Duration::from_secs(3600);
        near(limiter.admit(9, later), 0.0);
        near(limiter.admit(9, later), 2.0);
    }

    #[test]
    fn a_long_answer_is_made_up_for() {
        let (mut limiter, start) = limiter(None, Some(600.0));
        near(limiter.admit(10, start), 0.0);
        limiter.settle(10, 310, start);
        // 10 of 310 were there, and 10 come in each second.
        near(limiter.admit(10, start), 30.0);
        near(limiter.admit(10, start + Duration::from_secs(30)), 1.0);
        // A failed request uses nothing.
        limiter.settle(10, 0, start + Duration::from_secs(30));
        near(limiter.admit(10, start + Duration::from_secs(31)), 0.0);
    }

    #[test]
    fn a_pause_holds_for_all() {
        let (mut limiter, start) = limiter(None, None);
        near(limiter.admit(10, start), 0.0);
        limiter.pause(Duration::from_secs(5), start);
        limiter.pause(Duration::from_secs(1), start);
        near(limiter.admit(10, start + Duration::from_secs(2)), 3.0);
        near(limiter.admit(10, start + Duration::from_secs(6)), 0.0);
        limiter.pause(Duration::MAX, start);
        near(limiter.admit(10, start + Duration::from_secs(6)), 0.0);
    }
}
