//! How blocks of memory grow.

/// How much to reserve for `more` elements: nothing where they have room, else a sixteenth of what is there. Doubling, as
/// collections do by themselves, would waste up to half of the memory.
pub(crate) fn growth(len: usize, capacity: usize, more: usize) -> usize {
    if capacity - len < more {
        more.max(len / 16)
    } else {
        0
    }
}

/// Adds an element at the end; see [`growth`].
pub(crate) fn push<T>(block: &mut Vec<T>, element: T) {
    block.reserve_exact(growth(block.len(), block.capacity(), 1));
    block.push(element);
}

/// Makes a block at least `len` long; see [`growth`].
pub(crate) fn extend<T: Copy>(block: &mut Vec<T>, len: usize, value: T) {
    if let Some(more) = len.checked_sub(block.len()) {
        block.reserve_exact(growth(block.len(), block.capacity(), more));
        block.resize(len, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_wasted_and_little_is_moved() {
        let (mut block, mut moves) = (Vec::new(), 0);
        for number in 0..100_000 {
            let capacity = block.capacity();
            push(&mut block, number);
            moves += usize::from(block.capacity() != capacity);
            assert!(block.capacity() <= block.len() + block.len() / 16);
        }
        assert!(moves < 180, "{moves}");
        extend(&mut block, 100_500, 7);
        assert_eq!((block.len(), block.last()), (100_500, Some(&7)));
        extend(&mut block, 3, 8);
        assert_eq!(block.len(), 100_500);
    }
}
