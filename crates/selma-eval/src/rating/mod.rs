//! People judge which of two pictures fits a text better, as in section 5.6 of the SELMA paper.
//!
//! [`Study::new`] makes one HTML page that works without a network and a [`Key`] that stays with the maker of the study:
//! the page does not say who drew what. Raters send back the [`AnswerFile`] that the page saves, and [`Ratings`] puts
//! keys and answers together.

mod answers;
mod key;
mod outcome;
mod page;
mod picture;
mod preference;
mod prompt;
mod ratings;
mod result;
mod study;
mod summary;

pub use answers::{Answer, AnswerFile, AnswerFormat, Choice};
pub use key::{Key, KeyFormat, KeyPair};
pub use preference::Preference;
pub use prompt::{DatasetImages, StudyPrompt, read_study_prompts, shared_prompts};
pub use ratings::Ratings;
pub use result::{
    Agreement, CategoryPreference, Comparison, Ranking, RaterCount, RatingResult, Strength,
};
pub use study::{Study, StudyOptions};
