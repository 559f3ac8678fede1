//! Prompts that nothing is trained on, so that trainings can be watched by the pictures of them.

use std::collections::BTreeSet;

use selma_dataset::{Pictures, Subset};
use selma_diffusion::noise::derive_seed;

use crate::{Run, SelmaError};

/// A part of the data of a training, by its prompts. Where none are held back all is for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What is trained on.
    Training,
    /// What the training is watched by.
    Validation,
}

impl Part {
    /// The pictures of a data set that belong to it.
    pub(super) fn of(
        self,
        run: &Run,
        pictures: Box<dyn Pictures>,
    ) -> Result<Box<dyn Pictures>, SelmaError> {
        let count = run.recipe.train.validation;
        if count == 0 {
            return Ok(pictures);
        }
        let numbers = self.numbers(&*pictures, count, run.recipe.seed)?;
        Ok(Box::new(Subset::new(pictures, numbers)?))
    }

    /// The numbers of its pictures, where `count` captions are held back.
    fn numbers(
        self,
        pictures: &dyn Pictures,
        count: usize,
        seed: u64,
    ) -> Result<Vec<usize>, SelmaError> {
        let text = |index: usize| pictures.text(index).unwrap_or_default();
        let captions: BTreeSet<&str> = (0..pictures.len()).map(text).collect();
        if captions.len() <= count {
            let found = pictures.root().display();
            return Err(SelmaError::Setting {
                field: "train.validation".to_owned(),
                expected: format!("less than {}, the captions of {found}", captions.len()),
                found: count.to_string(),
            });
        }
        // Each caption has a place of its own, whatever else is in the data set: pictures of all kinds of one prompt belong together.
        let place = |caption: &str| derive_seed(seed, &format!("held back: {caption}"), &[]);
        let ranked: BTreeSet<(u64, &str)> =
            captions.iter().map(|text| (place(text), *text)).collect();
        let held_back: BTreeSet<&str> = ranked.iter().take(count).map(|(_, text)| *text).collect();
        let is_of_part =
            |index: &usize| held_back.contains(text(*index)) == (self == Self::Validation);
        Ok((0..pictures.len()).filter(is_of_part).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use selma_dataset::DatasetError;

    use super::*;

    /// Captions of pictures that are never looked at.
    #[derive(Debug)]
    struct Captions(Vec<String>);

    impl Pictures for Captions {
        fn root(&self) -> &Path {
            Path::new("captions")
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn name(&self, index: usize) -> Option<&str> {
            self.text(index)
        }

        fn text(&self, index: usize) -> Option<&str> {
            self.0.get(index).map(String::as_str)
        }

        fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
            Err(DatasetError::Index {
                path: self.root().into(),
                index,
                len: self.len(),
            })
        }
    }

    /// Three pictures of each of ten prompts.
    fn captions() -> Captions {
        Captions((0..30).map(|n| format!("{} circles", n / 3)).collect())
    }

    #[test]
    fn all_pictures_of_a_prompt_are_in_one_part() {
        let all = captions();
        let part = |part: Part, seed| part.numbers(&all, 4, seed).unwrap();
        let (training, validation) = (part(Part::Training, 1), part(Part::Validation, 1));
        assert_eq!((training.len(), validation.len()), (18, 12));
        let texts = |numbers: &[usize]| -> BTreeSet<String> {
            numbers.iter().map(|&n| all.0[n].clone()).collect()
        };
        assert!(texts(&training).is_disjoint(&texts(&validation)));
        assert_eq!(texts(&validation).len(), 4);
        assert!(training.is_sorted() && validation.is_sorted());
        assert_ne!(part(Part::Validation, 3), validation);
    }

    #[test]
    fn a_prompt_is_held_back_whatever_the_order() {
        let all = captions();
        let mut turned = captions();
        turned.0.reverse();
        let held_back = |data: &Captions| -> BTreeSet<String> {
            let numbers = Part::Validation.numbers(data, 4, 1).unwrap();
            numbers.iter().map(|&n| data.0[n].clone()).collect()
        };
        assert_eq!(held_back(&all), held_back(&turned));
    }

    #[test]
    fn something_must_be_left_to_train_on() {
        let error = Part::Training.numbers(&captions(), 10, 1).unwrap_err();
        let error = error.to_string();
        for part in ["train.validation", "less than 10", "captions"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
