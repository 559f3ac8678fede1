use super::*;
use crate::linalg::{test_numbers as numbers, truncate, truncate_dense};

/// The best approximation, by a full decomposition, and what it leaves.
fn best(product: &Mat<f64>, k: usize) -> (Mat<f64>, f64) {
    let svd = product.thin_svd().unwrap();
    let s = svd.S().column_vector();
    let mut left = svd.U().subcols(0, k).to_owned();
    for (column, value) in left.col_iter_mut().zip(s.iter()) {
        column.iter_mut().for_each(|x| *x *= value);
    }
    let lost = s.iter().skip(k).map(|x| x * x).sum::<f64>().sqrt();
    (left * svd.V().subcols(0, k).transpose(), lost)
}

fn check(product: &Mat<f64>, cut: &Truncated, k: usize) {
    let (near, lost) = best(product, k);
    let found = (&cut.a_turned * &cut.b_turned).transpose().to_owned();
    let size = product.norm_l2();
    assert_eq!(cut.a_turned.ncols(), k);
    assert!((&found - near).norm_l2() < 1e-7 * size);
    assert!(((&found - product).norm_l2() - lost).abs() < 1e-7 * size);
    assert!((cut.norm / size - 1.0).abs() < 1e-12);
    assert!((cut.error * cut.norm - lost).abs() < 1e-7 * size);
}

#[test]
fn it_is_the_best_approximation_whichever_side_is_longer() {
    for (m, r, n, k) in [
        (150, 70, 100, 9),
        (100, 70, 150, 69),
        (90, 300, 70, 5),
        // Wider than one of the sides, and still not multiplied first.
        (900, 90, 80, 9),
        (80, 90, 900, 70),
    ] {
        assert!(pays(m.min(n).min(r), k));
        let (b, a) = (numbers(r, m, 1), numbers(n, r, 2));
        let product = (&a * &b).transpose().to_owned();
        check(&product, &truncate(&b, &a, k).unwrap(), k);
        check(&product, &truncate_dense(product.as_ref(), k).unwrap(), k);
    }
}

#[test]
fn what_has_a_lower_rank_is_kept_whole() {
    // Rank 6 in 70 columns: the Gram matrix of either factor is singular.
    let (b, a) = (
        numbers(70, 6, 3) * numbers(6, 150, 4),
        numbers(100, 6, 5) * numbers(6, 70, 6),
    );
    let product = (&a * &b).transpose().to_owned();
    for k in [6, 20] {
        let cut = truncate(&b, &a, k).unwrap();
        check(&product, &cut, k);
        assert!(cut.error < 1e-7);
    }
    assert!(truncate(&b, &a, 5).unwrap().error > 1e-3);
}

#[test]
fn what_nearly_cancels_is_cut_as_exactly() {
    // `(x + 1e-6 y) z - x z`: a millionth of the factors.
    let (x, y, z) = (
        numbers(40, 150, 7),
        numbers(40, 150, 8),
        numbers(100, 40, 9),
    );
    let b = Mat::from_fn(80, 150, |i, j| {
        x[(i % 40, j)] + if i < 40 { 1e-6 * y[(i, j)] } else { 0.0 }
    });
    let a = Mat::from_fn(
        100,
        80,
        |i, j| if j < 40 { z[(i, j)] } else { -z[(i, j - 40)] },
    );
    let product = (faer::Scale(1e-6) * (&z * &y)).transpose().to_owned();
    let (near, _) = best(&product, 9);
    let cut = truncate(&b, &a, 9).unwrap();
    let found = (&cut.a_turned * &cut.b_turned).transpose().to_owned();
    assert!((found - near).norm_l2() < 1e-7 * product.norm_l2());
}

#[test]
fn roots_are_shared_and_zeros_stay_zeros() {
    let (b, a) = (numbers(70, 150, 7), numbers(100, 70, 8));
    let cut = truncate(&b, &a, 4).unwrap();
    for (x, y) in cut.b_turned.row_iter().zip(cut.a_turned.col_iter()) {
        assert!((x.norm_l2() / y.norm_l2() - 1.0).abs() < 1e-9);
    }
    for (b, a) in [(&Mat::zeros(70, 150), &a), (&b, &Mat::zeros(100, 70))] {
        let cut = truncate(b, a, 4).unwrap();
        assert_eq!((cut.norm, cut.error), (0.0, 0.0));
        assert_eq!((&cut.a_turned * &cut.b_turned).norm_l2(), 0.0);
    }
}

/// How far the kept part is from the best, relative to that.
fn off(product: &Mat<f64>, cut: &Truncated, k: usize) -> f64 {
    let (near, _) = best(product, k);
    let found = (&cut.a_turned * &cut.b_turned).transpose().to_owned();
    (found - &near).norm_l2() / near.norm_l2()
}

#[test]
fn single_precision_is_as_near_as_it_says() {
    for (m, r, n, k) in [
        (700, 300, 400, 60),
        (400, 300, 700, 100),
        // Multiplied first, and not although it is wide.
        (300, 640, 320, 128),
        (1500, 500, 400, 40),
    ] {
        let (b, a) = (numbers(r, m, 11), numbers(n, r, 12));
        let product = (&a * &b).transpose().to_owned();
        for cut in [
            truncate(&b, &a, k).unwrap(),
            truncate_dense(product.as_ref(), k).unwrap(),
        ] {
            let off = off(&product, &cut, k);
            // Nearer than that only `f64` is.
            assert!(1e-9 < off && off < UNCERTAIN, "{m} {r} {n}: {off:e}");
            let size = product.norm_l2();
            assert!((cut.norm / size - 1.0).abs() < 1e-6);
            let left = (cut.a_turned * cut.b_turned).transpose() - &product;
            assert!((cut.error * cut.norm / left.norm_l2() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn what_single_precision_cannot_tell_apart_is_done_in_double() {
    let (m, r, n, k) = (400, 300, 350, 20);
    let (u, v) = (
        numbers(m, r, 13).qr().compute_thin_Q(),
        numbers(n, r, 14).qr().compute_thin_Q(),
    );
    type Values = fn(usize) -> f64;
    let spectra: [(&str, Values); 4] = [
        ("falls fast", |i| 0.7_f64.powi(i as i32)),
        ("falls to nothing", |i| 10_f64.powf(-(i as f64) / 6.0)),
        ("the last two nearly the same", |i| match i {
            20 => 1.0 - 0.02 * 19.0 - 1e-7,
            i => 1.0 - 0.003 * i as f64 - 0.017 * i.min(19) as f64,
        }),
        ("hardly anything is lost", |i| {
            if i < 20 { 2.0 - 0.05 * i as f64 } else { 1e-3 }
        }),
    ];
    for (what, value) in spectra {
        let b = Mat::from_fn(r, m, |i, j| u[(j, i)] * value(i));
        let a = v.clone();
        let product = (&a * &b).transpose().to_owned();
        let cut = truncate(&b, &a, k).unwrap();
        let off = off(&product, &cut, k);
        assert!(off < 1e-7, "{what}: {off:e}");
        let left = (cut.a_turned * cut.b_turned).transpose() - &product;
        let lost = (cut.error * cut.norm - left.norm_l2()).abs();
        assert!(lost < 1e-7 * cut.norm, "{what}: {lost:e}");
    }
}

#[test]
fn sizes_out_of_the_range_of_single_precision_do_no_harm() {
    let (b, a) = (numbers(300, 400, 15), numbers(350, 300, 16));
    let product = (&a * &b).transpose().to_owned();
    for size in [1e-25, 1e-20, 1e-16, 1e-9, 1e9, 1e16, 1e25] {
        let scaled = faer::Scale(size) * &b;
        let mut cut = truncate(&scaled, &a, 30).unwrap();
        cut.b_turned = faer::Scale(1.0 / size) * cut.b_turned;
        let off = off(&product, &cut, 30);
        assert!(off < UNCERTAIN, "{size:e}: {off:e}");
    }
}
