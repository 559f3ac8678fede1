//! Attention against burn's own: sizes across every boundary, layouts, gradients, tracking, threads.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the helpers of tests fail by panicking"
)]

mod common;

use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, FloatDType, Tensor, TensorData, Tolerance};
use common::{assert_same, random};
use selma_kernels::attention;

type Operands = [Tensor<4>; 3];

fn plain(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let options = AttentionModuleOptions::default();
    burn_attention(query, key, value, None, None, options)
}

/// `[batch, heads, queries, width]`, the number of keys, and the width of the values.
#[derive(Clone, Copy, Debug)]
struct Case([usize; 4], usize, usize);

impl Case {
    fn operands(&self, device: &Device) -> Operands {
        let Self(query, keys, value_width) = *self;
        let [batch, heads, _, width] = query;
        device.seed(3);
        [
            random(query, device),
            random([batch, heads, keys, width], device),
            random([batch, heads, keys, value_width], device),
        ]
    }
}

/// The output and the gradients of a sum in which every output number has a weight of its own.
fn run(
    operands: &Operands,
    f: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> Vec<TensorData> {
    let [query, key, value] = operands.clone().map(Tensor::require_grad);
    let y = f(query.clone(), key.clone(), value.clone());
    let grads = (y.clone() * ramp(&y)).sum().backward();
    let mut all = vec![y.into_data()];
    all.extend([query, key, value].map(|x| x.grad(&grads).unwrap().into_data()));
    all
}

fn ramp(y: &Tensor<4>) -> Tensor<4> {
    let ramp = Tensor::arange(0..y.shape().num_elements() as i64, &y.device()).float();
    (ramp * 0.7).sin().reshape(y.shape())
}

fn check(case: Case) {
    let operands = case.operands(&Device::flex().autodiff());
    let got = run(&operands, attention);
    let expected = run(&operands, plain);
    for (name, (got, expected)) in ["y", "dq", "dk", "dv"]
        .iter()
        .zip(got.iter().zip(&expected))
    {
        assert_same(&format!("{case:?} {name}"), got, expected);
    }
    let [query, key, value] = operands.map(|x| Tensor::from_data(x.into_data(), &Device::flex()));
    let untracked = attention(query, key, value).into_data();
    untracked.assert_eq(&got[0], true);
}

#[test]
fn any_number_of_queries_and_keys_agrees() {
    for queries in [1, 2, 16, 17, 48, 49, 64, 100, 145] {
        for keys in [1, 7, 8, 77, 127, 128, 129, 300] {
            check(Case([1, 2, queries, 8], keys, 8));
        }
    }
}

#[test]
fn any_width_agrees() {
    for (width, value_width) in [
        (1, 1),
        (3, 5),
        (8, 16),
        (40, 40),
        (24, 96),
        (80, 80),
        (160, 160),
    ] {
        check(Case([2, 3, 50, width], 130, value_width));
    }
}

#[test]
fn one_head_and_many_queries_agree() {
    check(Case([1, 1, 700, 32], 700, 32));
    check(Case([3, 1, 256, 64], 256, 64));
}

#[test]
fn scores_far_from_zero_agree() {
    let device = Device::flex().autodiff();
    let [query, key, value] = Case([1, 2, 60, 16], 200, 16).operands(&device);
    // Scores of about ±60, in falling and in rising order of their maxima over the blocks.
    for sign in [1.0, -1.0] {
        let slope = Tensor::arange(0..200, &device)
            .float()
            .reshape([1, 1, 200, 1])
            * (sign * 0.05);
        let operands = [
            query.clone() * 6.0,
            key.clone() * 2.0 + slope,
            value.clone(),
        ];
        let operands = operands.map(|x| Tensor::from_data(x.into_data(), &device));
        for (got, expected) in run(&operands, attention).iter().zip(&run(&operands, plain)) {
            assert_same("far", got, expected);
        }
    }
}

/// As a layer of a model has it: heads are split off projections, and put together again.
fn in_a_layer(
    f: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4> {
    move |query, key, value| {
        let split = |x: Tensor<4>| x.swap_dims(1, 2);
        f(split(query), split(key), split(value)).swap_dims(1, 2)
    }
}

#[test]
fn any_layout_is_taken() {
    let device = Device::flex().autodiff();
    let case = Case([2, 70, 4, 12], 70, 12);
    let [query, key, value] = case.operands(&device);
    let operands = [
        query.clone(),
        query.clone().slice([0..2, 3..60, 0..4, 0..12]),
        query
            .swap_dims(2, 3)
            .reshape([2, 70, 12, 4])
            .swap_dims(2, 3),
    ];
    let key = key.slice([0..2, 0..70, 0..4, 0..12]);
    let value = value.slice([0..2, 0..70, 0..4, 0..12]);
    for query in operands {
        let operands = [
            query,
            key.clone().narrow(2, 0, 4),
            value.clone().narrow(2, 0, 4),
        ];
        let got = run(&operands, in_a_layer(attention));
        let expected = run(&operands, in_a_layer(plain));
        for (got, expected) in got.iter().zip(&expected) {
            assert_same("layout", got, expected);
        }
    }
}

#[test]
fn only_what_is_tracked_has_a_gradient() {
    let device = Device::flex().autodiff();
    let operands = Case([2, 2, 20, 8], 30, 8).operands(&device);
    let expected = run(&operands, plain);
    for tracked in 1..8 {
        let mut operands = operands.clone();
        for (i, operand) in operands.iter_mut().enumerate() {
            if tracked & (1 << i) != 0 {
                *operand = operand.clone().require_grad();
            }
        }
        let [query, key, value] = operands.clone();
        let y = attention(query, key, value);
        let grads = (y.clone() * ramp(&y)).sum().backward();
        for (i, (operand, expected)) in operands.iter().zip(&expected[1..]).enumerate() {
            let found = operand.grad(&grads).map(Tensor::into_data);
            assert_eq!(found.is_some(), tracked & (1 << i) != 0, "{tracked} {i}");
            if let Some(found) = found {
                assert_same("gradient", &found, expected);
            }
        }
    }

    // Keys and values that are not on the autodiff device at all.
    let [query, key, value] = operands;
    let query = query.require_grad();
    let y = attention(query.clone(), key.inner(), value.inner());
    let grads = (y.clone() * ramp(&y)).sum().backward();
    assert_same(
        "frozen",
        &query.grad(&grads).unwrap().into_data(),
        &expected[1],
    );
}

#[test]
fn a_leaf_used_several_times_gets_all_its_gradients() {
    for device in [
        Device::flex().autodiff(),
        Device::flex().autodiff().gradient_checkpointing(),
    ] {
        let operands = Case([1, 2, 20, 8], 20, 8).operands(&device);
        let twice = |f: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            run(&operands, |query, key, value| {
                let y = f(query.clone(), query + 1.0, value.clone());
                f(y.clone().tanh(), key, value.clone()) + y * value
            })
        };
        for (got, expected) in twice(&attention).iter().zip(&twice(&plain)) {
            assert_same("twice", got, expected);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let threads = |n| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
    };
    for case in [
        Case([2, 8, 100, 40], 77, 40),
        Case([1, 1, 300, 64], 300, 64),
        Case([1, 3, 300, 16], 500, 16),
    ] {
        let operands = case.operands(&Device::flex().autodiff());
        let all = || run(&operands, attention);
        let one = threads(1).install(all);
        for n in [2, 3] {
            let many = threads(n).install(all);
            for (one, many) in one.iter().zip(&many) {
                one.assert_eq(many, true);
            }
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_alone_and_in_a_batch() {
    let operands = Case([7, 2, 90, 24], 60, 24).operands(&Device::flex().autodiff());
    let together = run(&operands, |q, k, v| attention(q, k, v).tanh());
    for i in [0, 3, 6] {
        let alone = run(&operands, |q, k, v| {
            let [q, k, v] = [q, k, v].map(|x| x.narrow(0, i, 1));
            attention(q, k, v).tanh()
        });
        let device = Device::flex();
        let part = |data: &TensorData| {
            Tensor::<4>::from_data(data.clone(), &device)
                .narrow(0, i, 1)
                .into_data()
        };
        alone[0].assert_eq(&part(&together[0]), true);
    }
}

#[test]
fn other_precisions_take_the_plain_operation() {
    let [query, key, value] = Case([1, 2, 20, 8], 30, 8).operands(&Device::flex());
    let expected = plain(query.clone(), key.clone(), value.clone());
    let [query, key, value] = [query, key, value].map(|x| x.cast(FloatDType::F64));
    let y = attention(query, key, value);
    assert_eq!(FloatDType::from(y.dtype()), FloatDType::F64);
    let tolerance = Tolerance::<f32>::relative(1e-4).set_absolute(1e-4);
    y.cast(FloatDType::F32)
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
}

#[test]
fn a_nan_reaches_its_query_alone() {
    let device = Device::flex();
    let [query, key, value] = Case([1, 1, 60, 8], 200, 8).operands(&device);
    let mut numbers: Vec<f32> = query.into_data().try_to_vec().unwrap();
    numbers[50 * 8 + 3] = f32::NAN;
    let query = Tensor::from_data(TensorData::new(numbers, [1, 1, 60, 8]), &device);
    let y: Vec<f32> = attention(query, key, value)
        .into_data()
        .try_to_vec()
        .unwrap();
    for (i, row) in y.chunks_exact(8).enumerate() {
        assert!(row.iter().all(|y| y.is_nan() == (i == 50)), "{i}");
    }
}

#[test]
#[should_panic(expected = "keys and values do not fit the queries [1, 2, 5, 8]")]
fn keys_of_another_width_are_refused() {
    let device = Device::flex();
    let x = |width| Tensor::zeros([1, 2, 5, width], &device);
    let _ = attention(x(8), x(4), x(8));
}
