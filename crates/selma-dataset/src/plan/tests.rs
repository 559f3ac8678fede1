//! Tests of plans.

use super::*;

const WIDE: Size = Size {
    width: 768,
    height: 512,
};
const HIGH: Size = Size {
    width: 512,
    height: 768,
};

/// What trainings showed before there were plans, in 8 batches of 4 of 10 samples with seed 7.
const RECORDED: [usize; 32] = [
    3, 6, 2, 5, 1, 0, 4, 9, 7, 8, 1, 0, 3, 5, 2, 9, 7, 8, 4, 6, 0, 3, 1, 4, 8, 2, 9, 5, 6, 7, 3, 4,
];

fn set(weight: f64, sizes: &[(Size, usize)]) -> PlannedSet {
    let sizes = sizes.iter().flat_map(|(size, count)| vec![*size; *count]);
    PlannedSet {
        sizes: sizes.collect(),
        weight,
    }
}

fn plan(batch_size: usize, sets: &[PlannedSet]) -> Plan {
    Plan::new(7, batch_size, sets).unwrap()
}

fn batches(plan: &Plan, count: usize) -> Vec<Vec<usize>> {
    (0..count).map(|number| plan.batch(number)).collect()
}

fn sorted(mut samples: Vec<usize>) -> Vec<usize> {
    samples.sort_unstable();
    samples
}

#[test]
fn one_size_is_shown_in_the_order_of_before() {
    let plan = plan(4, &[set(1.0, &[(WIDE, 10)])]);
    let shown = batches(&plan, 8).concat();
    assert_eq!(shown, RECORDED);
}

#[test]
fn batches_of_one_size_go_on_over_the_end_of_an_epoch() {
    let plan = plan(3, &[set(1.0, &[(WIDE, 10)])]);
    let shown = batches(&plan, 20).concat();
    for epoch in shown.chunks(10) {
        assert_eq!(sorted(epoch.to_vec()), (0..10).collect::<Vec<_>>());
    }
    assert_ne!(shown[..10], shown[10..20]);
}

#[test]
fn a_batch_has_one_size_and_an_epoch_all_samples() {
    let sizes = vec![WIDE, HIGH, WIDE, WIDE, HIGH, WIDE, WIDE, WIDE, WIDE];
    let one = PlannedSet {
        sizes: sizes.clone(),
        weight: 0.0,
    };
    let plan = plan(4, &[one]);
    assert_eq!(plan.sizes(), BTreeMap::from([(HIGH, 2), (WIDE, 7)]));
    let epochs = batches(&plan, 300);
    for epoch in epochs.chunks(3) {
        for batch in epoch {
            assert_eq!(batch.len(), 4);
            assert!(batch.iter().all(|sample| sizes[*sample] == sizes[batch[0]]));
        }
        let mut seen = sorted(epoch.concat());
        seen.dedup();
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
    }
    // The batch that is filled up, and that of the other size, come at every place.
    let high = |batch: &Vec<usize>| sizes[batch[0]] == HIGH;
    let places: Vec<usize> = epochs
        .chunks(3)
        .filter_map(|epoch| epoch.iter().position(high))
        .collect();
    for place in 0..3 {
        let count = places.iter().filter(|at| **at == place).count();
        assert!((15..55).contains(&count), "{place}: {count}");
    }
}

#[test]
fn two_samples_fill_a_batch_of_five() {
    let plan = plan(5, &[set(1.0, &[(WIDE, 2), (HIGH, 5)])]);
    for batch in batches(&plan, 6) {
        let counts = [0, 1].map(|sample| batch.iter().filter(|shown| **shown == sample).count());
        assert!(matches!(counts, [0, 0] | [2, 3] | [3, 2]), "{batch:?}");
    }
}

#[test]
fn sets_take_turns_by_their_weights() {
    let sets = [set(3.0, &[(WIDE, 50)]), set(1.0, &[(WIDE, 7)])];
    let plan = plan(4, &sets);
    let shown = batches(&plan, BLOCK).concat();
    for block in shown.chunks(BLOCK) {
        let of_second = block.iter().filter(|sample| **sample >= 50).count();
        assert_eq!(of_second, BLOCK / 4);
    }
    // Not in a regular order.
    let early = shown[..400].iter().filter(|sample| **sample >= 50).count();
    assert!((60..140).contains(&early), "{early}");
    assert!(early != 100 || shown[..200] != shown[200..400]);
    // Each set has its own epochs, over the ends of blocks.
    for (first, len) in [(0, 50), (50, 7)] {
        let own: Vec<usize> = shown
            .iter()
            .copied()
            .filter(|sample| (first..first + len).contains(sample))
            .collect();
        for epoch in own.chunks_exact(len) {
            assert_eq!(
                sorted(epoch.to_vec()),
                (first..first + len).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn with_several_sizes_sets_take_turns_by_batches() {
    let sets = [set(1.0, &[(WIDE, 5)]), set(2.0, &[(HIGH, 3), (WIDE, 4)])];
    let plan = plan(2, &sets);
    let shown = batches(&plan, BLOCK);
    let of_first = shown
        .iter()
        .filter(|batch| batch.iter().all(|sample| *sample < 5));
    assert_eq!(of_first.count(), BLOCK / 3);
    assert!(shown.iter().all(|batch| (batch[0] < 5) == (batch[1] < 5)));
    assert!(
        shown
            .iter()
            .all(|batch| (5..8).contains(&batch[0]) == (5..8).contains(&batch[1]))
    );
}

#[test]
fn shares_are_rounded_by_largest_remainders() {
    let shares = |weights: &[f64]| {
        let sets: Vec<PlannedSet> = weights
            .iter()
            .map(|weight| set(*weight, &[(WIDE, 1)]))
            .collect();
        turns(&sets).unwrap()
    };
    assert_eq!(shares(&[1.0; 5]), [504; 5]);
    assert_eq!(shares(&[1.0; 11]), [[230].as_slice(), &[229; 10]].concat());
    assert_eq!(shares(&[0.2, 0.5, 0.3]), [504, 1260, 756]);
    assert_eq!(shares(&[1.0, 2519.3]), [1, 2519]);
    assert_eq!(shares(&[1e308, 1e308, 1e308]), [840; 3]);
    assert_eq!(shares(&[9.0]), [BLOCK]);
}

#[test]
fn another_seed_is_another_order() {
    for sets in [
        vec![set(1.0, &[(WIDE, 40)])],
        vec![set(1.0, &[(WIDE, 20), (HIGH, 20)])],
        vec![set(1.0, &[(WIDE, 20)]), set(1.0, &[(WIDE, 20)])],
    ] {
        let [a, b] = [1, 2].map(|seed| Plan::new(seed, 8, &sets).unwrap().batch(0));
        assert_ne!(a, b);
    }
}

#[test]
fn what_cannot_be_planned_is_named() {
    let error =
        |batch_size, sets: &[PlannedSet]| Plan::new(0, batch_size, sets).unwrap_err().to_string();
    let good = || set(1.0, &[(WIDE, 2)]);
    assert!(error(0, &[good()]).contains("batch_size"));
    assert!(error(1, &[]).contains("`sets`"));
    assert_eq!(
        error(1, &[good(), set(1.0, &[])]),
        "`sizes`: expected samples in data set 1, found none"
    );
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let text = error(1, &[good(), set(weight, &[(WIDE, 1)])]);
        assert!(text.contains("a positive number for data set 1"), "{text}");
    }
    let text = error(1, &[good(), set(1e-4, &[(WIDE, 1)])]);
    assert!(
        text.contains("at least 1/2520") && text.contains("0.0001"),
        "{text}"
    );
}
