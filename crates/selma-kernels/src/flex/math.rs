//! Scalar functions written without branches, so that a loop over them becomes SIMD code.
//!
//! Multiplications and additions stay separate (no fused multiply-add), so every CPU computes the same bits.

/// A function of one number.
pub(crate) trait Map1: Copy + Sync {
    /// The value at `x`.
    fn apply(self, x: f32) -> f32;
}

/// The number itself.
#[derive(Clone, Copy)]
pub(crate) struct Itself;

impl Map1 for Itself {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x
    }
}

/// A function of two numbers.
pub(crate) trait Map2: Copy + Sync {
    /// The value at `(a, b)`.
    fn apply(self, a: f32, b: f32) -> f32;
}

/// A function of three numbers.
pub(crate) trait Map3: Copy + Sync {
    /// The value at `(a, b, c)`.
    fn apply(self, a: f32, b: f32, c: f32) -> f32;
}

/// A differentiable function of one number.
pub(crate) trait Activation: Copy + core::fmt::Debug + Send + Sync + 'static {
    /// The value at `x`.
    fn forward(x: f32) -> f32;
    /// The derivative at `x`.
    fn derivative(x: f32) -> f32;
}

/// `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity;

/// `x / (1 + exp(-x))`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silu;

/// `x Φ(x)`, with `Φ` the distribution function of the standard normal distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gelu;

impl Activation for Identity {
    #[inline(always)]
    fn forward(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn derivative(_x: f32) -> f32 {
        1.0
    }
}

impl Activation for Silu {
    #[inline(always)]
    fn forward(x: f32) -> f32 {
        x / (1.0 + exp(-x))
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let sigmoid = 1.0 / (1.0 + exp(-x));
        sigmoid * (1.0 + x * (1.0 - sigmoid))
    }
}

impl Activation for Gelu {
    #[inline(always)]
    fn forward(x: f32) -> f32 {
        let (cdf, _) = normal(x);
        x * cdf
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let (cdf, pdf) = normal(x);
        cdf + x * pdf
    }
}

/// `exp(x)` within 2 units in the last place: 0 below -104, infinite above 88.73, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Comparisons rather than `clamp`, because they let NaN through and become single instructions.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };

    let (p, shifted) = reduced_exp(x);
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .cast_signed();

    // Two factors, because 2^128 and 2^-150 have no f32 of their own.
    let half = exponent >> 1;
    p * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// Adding it rounds to an integer, which then stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// `exp(x) / 2^n` for the integer `n` that is nearest to `x log2(e)`, and `n + ROUND`. `x` must be of less than 2^21.
///
/// The polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(crate) fn reduced_exp(x: f32) -> (f32, f32) {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x - whole * LN_2_HIGH - whole * LN_2_LOW;

    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    (p * (r * r) + r + 1.0, shifted)
}

/// `2^n` for `n` in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127).cast_unsigned()) << 23)
}

/// The distribution function and the density of the standard normal distribution at `x`.
///
/// `Φ(-a) = exp(-a²/2) t R(t)` with `t = 1 / (1 + 0.35 a)` for `a ≥ 0`: one exponential serves both results, and the
/// lower tail keeps its relative precision, which `(1 + erf(x/√2)) / 2` loses. `R` is the minimax polynomial in the
/// relative error (3.2e-8 before rounding) that `tools/fit_normal_cdf.py` finds.
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;

    let e = exp(-0.5 * (x * x));
    let t = 1.0 / (1.0 + 0.35 * x.abs());
    let mut r = -0.029_163_808;
    r = r * t + 0.144_060_24;
    r = r * t - 0.255_900_74;
    r = r * t + 0.159_391_67;
    r = r * t - 0.023_263_017;
    r = r * t + 0.105_574_474;
    r = r * t + 0.119_815_57;
    r = r * t + 0.139_864_33;
    r = r * t + 0.139_621_26;
    let lower = e * (t * r);
    let cdf = if x > 0.0 { 1.0 - lower } else { lower };
    (cdf, e * INV_SQRT_2PI)
}

#[cfg(test)]
mod tests {
    use super::{Activation, Gelu, Silu, exp, normal};

    /// The distance in units in the last place of `expected`.
    fn ulps(got: f32, expected: f64) -> f64 {
        let ulp = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
        (f64::from(got) - expected).abs() / ulp
    }

    #[test]
    fn exp_is_within_two_ulps_where_f32_is_normal() {
        let mut worst: f64 = 0.0;
        for i in 0..400_000 {
            let x = -87.3 + 176.0 * (i as f32) / 400_000.0;
            worst = worst.max(ulps(exp(x), f64::from(x).exp()));
        }
        assert!(worst < 2.0, "{worst} ulps");
    }

    #[test]
    fn exp_saturates_and_keeps_nan() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-104.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(88.73), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(88.72).is_finite());
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-95.0) > 0.0, "subnormal results are kept");
    }

    #[test]
    fn normal_is_symmetric_and_known_at_a_few_points() {
        // scipy.stats.norm.cdf and pdf
        for (x, cdf, pdf) in [
            (0.0, 0.5, 0.398_942_280_401_432_7),
            (1.0, 0.841_344_746_068_542_9, 0.241_970_724_519_143_37),
            (-1.0, 0.158_655_253_931_457_07, 0.241_970_724_519_143_37),
            (-3.0, 0.001_349_898_031_630_094_6, 0.004_431_848_411_938_008),
            (-8.0, 6.220_960_574_271_786e-16, 5.052_271_083_536_893e-15),
        ] {
            let (c, p) = normal(x);
            assert!((f64::from(c) / cdf - 1.0).abs() < 1e-6, "cdf({x}) = {c}");
            assert!((f64::from(p) / pdf - 1.0).abs() < 1e-6, "pdf({x}) = {p}");
        }
        for i in 0..1000 {
            let x = i as f32 * 0.013;
            assert!((normal(x).0 + normal(-x).0 - 1.0).abs() < 1.2e-7);
        }
    }

    #[test]
    fn derivatives_agree_with_finite_differences() {
        fn check<A: Activation>() {
            for i in -80..80 {
                let x = i as f32 * 0.1;
                let h = 1e-2;
                let slope = (A::forward(x + h) - A::forward(x - h)) / (2.0 * h);
                assert!((A::derivative(x) - slope).abs() < 1e-4, "{x}");
            }
        }
        check::<Silu>();
        check::<Gelu>();
    }
}
