//! Circles in the dependencies of one item.

use std::collections::BTreeMap;

/// The first circle met from the first proposition on, its first proposition repeated as its last, given each with its
/// parents; dependencies on propositions that do not exist are passed over.
///
/// Without recursion, so that a file with one very long chain cannot overflow the stack.
pub(crate) fn find_cycle<'a>(
    propositions: impl Iterator<Item = (u32, &'a [u32])> + Clone,
) -> Option<Vec<u32>> {
    let parents: BTreeMap<u32, &[u32]> = propositions.clone().collect();
    let mut finished: BTreeMap<u32, bool> = BTreeMap::new();
    for (start, _) in propositions {
        if finished.contains_key(&start) {
            continue;
        }
        finished.insert(start, false);
        let mut path = vec![(
            start,
            parents.get(&start).copied().unwrap_or_default().iter(),
        )];
        while let Some((id, rest)) = path.last_mut() {
            let Some(&parent) = rest.next() else {
                finished.insert(*id, true);
                path.pop();
                continue;
            };
            match finished.get(&parent) {
                Some(true) => {}
                Some(false) => {
                    let mut cycle: Vec<u32> = path
                        .iter()
                        .map(|(id, _)| *id)
                        .skip_while(|id| *id != parent)
                        .collect();
                    cycle.push(parent);
                    return Some(cycle);
                }
                None => {
                    if let Some(next) = parents.get(&parent) {
                        finished.insert(parent, false);
                        path.push((parent, next.iter()));
                    }
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(edges: &[(u32, &[u32])]) -> Option<Vec<u32>> {
        find_cycle(edges.iter().copied())
    }

    #[test]
    fn a_diamond_is_not_a_circle() {
        assert_eq!(cycle(&[(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3])]), None);
    }

    #[test]
    fn a_forward_reference_is_not_a_circle() {
        assert_eq!(cycle(&[(1, &[3]), (2, &[1]), (3, &[])]), None);
    }

    #[test]
    fn circles_are_found_wherever_they_hang() {
        assert_eq!(cycle(&[(1, &[1])]), Some(vec![1, 1]));
        assert_eq!(
            cycle(&[(1, &[]), (2, &[1, 3]), (3, &[4]), (4, &[1, 3])]),
            Some(vec![3, 4, 3])
        );
        assert_eq!(cycle(&[(1, &[2]), (2, &[9, 1])]), Some(vec![1, 2, 1]));
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_does_not_overflow() {
        let parents: Vec<u32> = (2..100_002).collect();
        let chain = parents
            .iter()
            .map(|parent| (parent - 1, std::slice::from_ref(parent)));
        assert_eq!(find_cycle(chain), None);
    }
}
