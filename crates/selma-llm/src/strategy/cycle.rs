//! A round through numbers that are far apart from one step to the next.

/// Visits each of `0..length` once in a round, in an order in which every stretch is spread evenly over all of them: steps of
/// the golden section of `length`, the step brought to the next number that has no divisor in common with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cycle {
    length: u64,
    start: u64,
    step: u64,
}

impl Cycle {
    /// A round through `0..length` that begins somewhere, as `random` says. A length of 0 counts as 1.
    pub(crate) fn new(length: u64, random: u64) -> Self {
        let length = length.max(1);
        // 0.618.. of 2^64, so that the product's upper half is 0.618.. of the length.
        let golden = (u128::from(length) * 0x9E37_79B9_7F4A_7C15) >> 64;
        let mut step = (golden as u64).max(1);
        while divisor(step, length) > 1 {
            step += 1;
        }
        Self {
            length,
            start: random % length,
            step,
        }
    }

    /// The number at step `k`.
    pub(crate) fn at(self, k: u64) -> u64 {
        let walked = u128::from(k) * u128::from(self.step) + u128::from(self.start);
        (walked % u128::from(self.length)) as u64
    }
}

/// The greatest common divisor.
fn divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_each_number_once() {
        for length in (1..200).chain([1000, 1024, 30030]) {
            let cycle = Cycle::new(length, 12345);
            let mut seen: Vec<u64> = (0..length).map(|k| cycle.at(k)).collect();
            assert_eq!(cycle.at(length), cycle.at(0));
            seen.sort_unstable();
            assert_eq!(seen, (0..length).collect::<Vec<u64>>(), "{length}");
        }
        assert_eq!(Cycle::new(0, 9).at(5), 0);
        assert!(Cycle::new(u64::MAX, 1).at(u64::MAX) < u64::MAX);
    }

    #[test]
    fn every_stretch_is_spread_evenly() {
        let cycle = Cycle::new(1000, 0);
        for start in [0, 100, 777] {
            let mut tenths = [0; 10];
            for k in start..start + 50 {
                tenths[cycle.at(k) as usize / 100] += 1;
            }
            assert!(tenths.iter().all(|n| (3..=7).contains(n)), "{tenths:?}");
        }
    }
}
