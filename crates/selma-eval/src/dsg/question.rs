use serde::{Deserialize, Serialize};

/// One yes/no question about the image of one prompt: a row of DSG's annotation CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsgQuestion {
    /// The prompt's id, `<source>_<number>` in DSG-1k ("whoops_5").
    pub item_id: String,
    /// The prompt itself.
    pub text: String,
    /// The words of the prompt that the proposition is about, as one comma-separated cell.
    pub keywords: String,
    /// The proposition's number within its item; DSG counts from 1.
    pub proposition_id: u32,
    /// Propositions of the same item that must hold for this one to make sense. Empty for DSG's "0".
    pub dependency: Vec<u32>,
    /// "entity", "attribute", "relation", "global" or "other".
    pub category_broad: String,
    /// "whole", "color", "spatial", "count", …; "-" for global propositions.
    pub category_detailed: String,
    /// The proposition, as "attribute - color (rubix cube, purple)".
    pub tuple: String,
    /// The question in natural language; the column `question_natural_language`.
    pub question: String,
}
