//! Against numpy, scipy, statsmodels and krippendorff; `tools/make_stats_fixtures.py` makes the reference.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use selma_eval::stats::{
    Bootstrap, Cluster, IntervalMethod, McNemar, bradley_terry, holm, kendall, krippendorff,
    percentile, spearman,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    resamples: u32,
    quantiles: Vec<Quantile>,
    means: Vec<Mean>,
    pairs: Vec<Pair>,
    correlations: Vec<Ranks>,
    mcnemar: Vec<Discordant>,
    holm: Vec<Corrected>,
    krippendorff: Vec<Labels>,
    bradley_terry: Vec<Wins>,
}

#[derive(Deserialize)]
struct Ranks {
    x: Vec<f64>,
    y: Vec<f64>,
    spearman: f64,
    spearman_p: f64,
    kendall: f64,
    kendall_p: f64,
}

#[derive(Deserialize)]
struct Discordant {
    first: u64,
    second: u64,
    p_exact: f64,
    chi_square: f64,
    p_chi_square: f64,
}

#[derive(Deserialize)]
struct Corrected {
    p: Vec<f64>,
    holm: Vec<f64>,
}

#[derive(Deserialize)]
struct Labels {
    units: Vec<Vec<usize>>,
    alpha: f64,
}

#[derive(Deserialize)]
struct Wins {
    wins: Vec<Vec<f64>>,
    strengths: Vec<f64>,
}

#[derive(Deserialize)]
struct Quantile {
    values: Vec<f64>,
    q: f64,
    quantile: f64,
}

#[derive(Deserialize)]
struct Mean {
    counts: Vec<u32>,
    a: Vec<f64>,
    mean: f64,
    method: IntervalMethod,
    confidence: f64,
    low: f64,
    high: f64,
    tolerance: f64,
}

#[derive(Deserialize)]
struct Pair {
    counts: Vec<u32>,
    a: Vec<f64>,
    b: Vec<f64>,
    difference: f64,
    p: f64,
    exact: bool,
    confidence: f64,
    low: f64,
    high: f64,
    tolerance: f64,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/stats.json")).unwrap()
}

fn clusters(sums: &[f64], counts: &[u32]) -> Vec<Cluster> {
    sums.iter()
        .zip(counts)
        .map(|(&sum, &count)| Cluster { sum, count })
        .collect()
}

fn assert_close(ours: f64, theirs: f64, tolerance: f64) {
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{ours} is not {theirs} to {tolerance}"
    );
}

#[test]
fn quantiles_are_numpys() {
    for case in fixture().quantiles {
        assert_close(
            percentile(&case.values, case.q).unwrap(),
            case.quantile,
            1e-12,
        );
    }
}

#[test]
fn intervals_of_a_mean_are_scipys() {
    let fixture = fixture();
    for case in fixture.means {
        let bootstrap = Bootstrap {
            resamples: fixture.resamples,
            confidence: case.confidence,
            seed: 11,
            method: case.method,
        };
        let estimate = bootstrap
            .estimate(&clusters(&case.a, &case.counts))
            .unwrap();
        assert_close(estimate.mean, case.mean, 1e-12);
        assert_close(estimate.low, case.low, case.tolerance);
        assert_close(estimate.high, case.high, case.tolerance);
        assert_eq!(estimate.clusters, case.counts.len());
        assert_eq!(estimate.n, case.counts.iter().sum::<u32>() as usize);
    }
}

#[test]
fn paired_differences_and_their_p_values_are_scipys() {
    let fixture = fixture();
    for case in fixture.pairs {
        let bootstrap = Bootstrap {
            resamples: fixture.resamples,
            confidence: case.confidence,
            seed: 11,
            ..Bootstrap::default()
        };
        let a = clusters(&case.a, &case.counts);
        let b = clusters(&case.b, &case.counts);
        let paired = bootstrap.paired(&a, &b).unwrap();
        assert_close(paired.difference, case.difference, 1e-12);
        assert_close(paired.low, case.low, case.tolerance);
        assert_close(paired.high, case.high, case.tolerance);
        // Drawn: four standard errors of a share among the draws, with room for scipy's own.
        let error = (case.p * (1.0 - case.p) / f64::from(fixture.resamples)).sqrt();
        assert_close(
            paired.p,
            case.p,
            if case.exact { 1e-12 } else { 5.0 * error },
        );
        // The interval of the difference is narrower than the two means' intervals together.
        let apart = bootstrap.estimate(&a).unwrap();
        assert!(paired.high - paired.low < 2.0 * (apart.high - apart.low));
    }
}

#[test]
fn rank_correlations_are_scipys() {
    for case in fixture().correlations {
        let bootstrap = Bootstrap::default();
        let rho = spearman(&case.x, &case.y, &bootstrap).unwrap();
        assert_close(rho.coefficient, case.spearman, 1e-12);
        assert_close(rho.p, case.spearman_p, 1e-10);
        let tau = kendall(&case.x, &case.y, &bootstrap).unwrap();
        assert_close(tau.coefficient, case.kendall, 1e-12);
        assert_close(tau.p, case.kendall_p, 1e-10);
        for correlation in [rho, tau] {
            assert_eq!(correlation.n, case.x.len());
            assert!(
                -1.0 <= correlation.low
                    && correlation.low < correlation.coefficient
                    && correlation.coefficient <= correlation.high
                    && correlation.high <= 1.0,
                "{correlation:?}"
            );
        }
    }
}

#[test]
fn mcnemar_and_holm_are_those_of_statsmodels() {
    let fixture = fixture();
    for case in fixture.mcnemar {
        let test = McNemar::new(case.first, case.second);
        assert_close(test.chi_square, case.chi_square, 1e-12);
        // The beta and error functions are good to ten digits.
        assert_close(test.p_exact, case.p_exact, 1e-10);
        assert_close(test.p_chi_square, case.p_chi_square, 1e-10);
    }
    for case in fixture.holm {
        for (ours, theirs) in holm(&case.p).unwrap().into_iter().zip(case.holm) {
            assert_close(ours, theirs, 1e-12);
        }
    }
}

#[test]
fn agreement_is_that_of_krippendorff() {
    for case in fixture().krippendorff {
        assert_close(krippendorff(&case.units).unwrap(), case.alpha, 1e-12);
    }
}

#[test]
fn strengths_are_at_the_peak_that_scipy_finds() {
    for case in fixture().bradley_terry {
        let ours = bradley_terry(&case.wins).unwrap();
        assert_eq!(ours.len(), case.strengths.len());
        for (ours, theirs) in ours.into_iter().zip(case.strengths) {
            // What BFGS leaves.
            assert_close(ours, theirs, 1e-5);
        }
    }
}

#[test]
fn the_same_settings_give_the_same_bits() {
    let case = &fixture().pairs[1];
    let a = clusters(&case.a, &case.counts);
    let b = clusters(&case.b, &case.counts);
    let bootstrap = Bootstrap::default();
    let first = bootstrap.paired(&a, &b).unwrap();
    let handles: Vec<_> = (0..3)
        .map(|_| {
            let (a, b) = (a.clone(), b.clone());
            std::thread::spawn(move || bootstrap.paired(&a, &b).unwrap())
        })
        .collect();
    for handle in handles {
        assert_eq!(handle.join().unwrap(), first);
    }
    // Fixed for good: results of different versions of this crate can be compared.
    assert_eq!(PINNED, [first.low, first.high]);
}

const PINNED: [f64; 2] = [0.001_979_521_194_306_932, 0.087_971_992_818_671_45];
