//! A question answerer that sees: pixels to objects to answers.

mod fit;
mod segment;
mod template;

use image::RgbImage;
use selma_eval::{EvalError, Vqa};

use crate::question::{Question, SeenObject, SeenScene};
use crate::scene::SIDE;
use crate::{MiniError, Size};

/// Answers the questions of the miniature world from pixels alone, as a [`Vqa`] model.
///
/// Answers are "yes" and "no"; a question that is not of the forms of [`Question`] gets the empty answer.
///
/// ```
/// use selma_eval::Vqa;
/// use selma_mini::{Background, Colour, Object, OracleVqa, Scene, Shape, Size, render};
///
/// let heart = Object { shape: Shape::Heart, colour: Colour::Red, size: Size::Small, x: 20.0, y: 30.0, radius: 6.5 };
/// let image = render(&Scene { background: Background::Mint, objects: vec![heart] });
/// let answers = OracleVqa.answer(&image, &["Is there a heart?", "Is the heart blue?", "Why?"])?;
/// assert_eq!(answers, ["yes", "no", ""]);
/// # Ok::<(), selma_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct OracleVqa;

impl Vqa for OracleVqa {
    fn name(&self) -> &str {
        "selma-mini-oracle"
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        let seen = see(image).map_err(|error| EvalError::Vqa {
            model: self.name().to_owned(),
            message: error.to_string(),
        })?;
        let answer = |text: &&str| match text.parse::<Question>() {
            Ok(question) if seen.answer(question) => "yes".to_owned(),
            Ok(_) => "no".to_owned(),
            Err(_) => String::new(),
        };
        Ok(questions.iter().map(answer).collect())
    }
}

/// What is seen in a 64 by 64 picture: the background is the most frequent colour; objects are connected regions of a
/// palette colour mixed into it, named by the shape whose blurred template fits them best.
///
/// # Errors
/// [`MiniError::ImageSize`] for a picture of another size.
pub fn see(image: &RgbImage) -> Result<SeenScene, MiniError> {
    if image.dimensions() != (SIDE, SIDE) {
        let (width, height) = image.dimensions();
        return Err(MiniError::ImageSize { width, height });
    }
    let background = segment::background_colour(image);
    let objects = segment::blobs(image, background)
        .iter()
        .filter_map(|blob| {
            let fit = fit::fit(blob)?;
            Some(SeenObject {
                shape: fit.shape,
                colour: blob.colour,
                size: Size::of_radius(fit.radius),
                x: fit.x,
                y: fit.y,
            })
        })
        .collect();
    Ok(SeenScene {
        background: segment::nearest_background(background),
        objects,
    })
}

#[cfg(test)]
mod tests;
