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

impl DsgQuestion {
    /// The item id without its number, DSG-1k's way to name the source of a prompt: "stanford_paragraph" for
    /// "stanford_paragraph_12". An id without an underscore is its own source.
    pub fn source(&self) -> &str {
        source(&self.item_id)
    }
}

pub(crate) fn source(item_id: &str) -> &str {
    item_id
        .rsplit_once('_')
        .map_or(item_id, |(source, _)| source)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn question(item: &str, id: u32, parents: &[u32]) -> DsgQuestion {
        DsgQuestion {
            item_id: item.to_owned(),
            text: format!("the prompt of {item}"),
            keywords: String::new(),
            proposition_id: id,
            dependency: parents.to_vec(),
            category_broad: "entity".to_owned(),
            category_detailed: "whole".to_owned(),
            tuple: format!("entity - whole (thing {id})"),
            question: format!("Is there thing {id}?"),
        }
    }

    #[test]
    fn the_source_is_the_id_without_its_number() {
        assert_eq!(
            question("stanford_paragraph_12", 1, &[]).source(),
            "stanford_paragraph"
        );
        assert_eq!(question("plain", 1, &[]).source(), "plain");
    }
}
