//! Many texts at once, on all processors.

use rayon::prelude::*;

use super::{DiversityFilter, Verdict};

/// Texts looked up against the same state of the filter.
const BLOCK: usize = 8192;

impl DiversityFilter {
    /// Offers the texts in order: the verdicts are those of [`offer`](Self::offer), one by one, whatever the number of
    /// texts and threads.
    ///
    /// The threads of the current rayon pool look texts up among those kept before; what the texts of a batch are to each
    /// other is then settled in order.
    pub fn offer_batch<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(texts.len());
        for block in texts.chunks(BLOCK) {
            self.rank_if_due();
            let before = self.store.next_id();
            let filter = &*self;
            let probed: Vec<_> = block
                .par_iter()
                .map(|text| {
                    let mut encoded = filter.encode(text.as_ref());
                    let nearest = filter.probe(&mut encoded, 0);
                    (encoded, nearest)
                })
                .collect();
            for (text, (mut encoded, nearest)) in block.iter().zip(probed) {
                let text = text.as_ref();
                // Its new numbers may have been given out to a text before it.
                if !encoded.new.is_empty() {
                    encoded = self.encode(text);
                }
                let here = self.probe(&mut encoded, before);
                let nearest = match (nearest, here) {
                    (Some(nearest), Some(here)) => Some(nearest.or_closer(here)),
                    (nearest, here) => nearest.or(here),
                };
                verdicts.push(self.resolve(text, encoded, nearest));
            }
        }
        verdicts
    }
}
