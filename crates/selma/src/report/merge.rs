//! What each merge did: a row of figures, and how strong its update is layer by layer.

use super::{Report, escape, number};

/// One merged adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeRow {
    /// Its name.
    pub name: String,
    /// The method with its options.
    pub method: String,
    /// The adapters that went in, each with its weight.
    pub inputs: Vec<(String, f64)>,
    /// Frobenius norm of the whole update before truncation.
    pub norm: f64,
    /// Norm of what truncation cut off, relative to `norm`.
    pub truncation_error: f64,
    /// The largest distance of any layer from its formula, relative to its size.
    pub self_check: f64,
    /// Every layer, in the order of the file.
    pub layers: Vec<MergedLayer>,
}

/// One layer of a merged adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedLayer {
    /// Its path.
    pub module: String,
    /// Rank of the update.
    pub rank: usize,
    /// Frobenius norm of the update.
    pub norm: f64,
}

impl MergeRow {
    /// "160", or "8 to 160" where the layers differ.
    pub(super) fn ranks(&self) -> String {
        let ranks = || self.layers.iter().map(|layer| layer.rank);
        match ranks().min().zip(ranks().max()) {
            None => "-".to_owned(),
            Some((low, high)) if low == high => low.to_string(),
            Some((low, high)) => format!("{low} to {high}"),
        }
    }

    /// "coco, whoops", with the weights that are not 1.
    pub(super) fn of(&self) -> String {
        let inputs = self.inputs.iter().map(|(name, weight)| match weight {
            1.0 => name.clone(),
            weight => format!("{} \u{d7} {name}", number::short(*weight)),
        });
        inputs.collect::<Vec<String>>().join(", ")
    }
}

pub(super) fn merges(report: &Report) -> String {
    let norms = report.merges.iter().flat_map(|merge| &merge.layers);
    let most = norms
        .map(|layer| layer.norm)
        .filter(|norm| norm.is_finite())
        .fold(0.0, f64::max);
    let rows: String = report.merges.iter().map(|merge| row(merge, most)).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Merges\"><table class=\"merges\"><thead><tr>\
         <th scope=\"col\">Merged</th><th scope=\"col\" class=\"text\">Method and experts</th><th scope=\"col\">Layers</th>\
         <th scope=\"col\">Rank</th><th scope=\"col\">Norm</th><th scope=\"col\" class=\"bar-head\">Norm by layer</th>\
         <th scope=\"col\">Cut off</th><th scope=\"col\">Self-check</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn row(merge: &MergeRow, most: f64) -> String {
    let cut = match merge.truncation_error {
        0.0 => "nothing".to_owned(),
        error => format!("{}%", number::percent(error)),
    };
    format!(
        "<tr class=\"kind-merged\"><th scope=\"row\">{}</th><td class=\"text\"><span class=\"mean\">{}</span><small>{}</small></td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{cut}</td><td>{}</td></tr>\n",
        escape::name(&merge.name),
        escape::html(&merge.method),
        escape::name(&merge.of()),
        number::count(merge.layers.len()),
        merge.ranks(),
        number::short(merge.norm),
        layers(merge, most),
        number::short(merge.self_check),
    )
}

/// A bar for each layer, as high as its norm; the highest of all merges fills the height.
fn layers(merge: &MergeRow, most: f64) -> String {
    let bars: String = merge
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let height = if most > 0.0 { layer.norm / most } else { 0.0 };
            format!(
                "M{index} 1h.8v-{}h-.8z",
                number::svg(height.clamp(0.0, 1.0))
            )
        })
        .collect();
    let strongest = merge.layers.iter().filter(|layer| layer.norm.is_finite());
    let strongest = strongest.max_by(|a, b| a.norm.total_cmp(&b.norm));
    let words = strongest.map_or_else(String::new, |layer| {
        let (module, norm) = (escape::html(&layer.module), number::short(layer.norm));
        format!("strongest: {module}, norm {norm}")
    });
    format!(
        "<svg class=\"layers\" viewBox=\"0 0 {} 1\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{words}\">\
         <path class=\"bars\" d=\"{bars}\"/><title>{words}</title></svg>",
        merge.layers.len().max(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_words() {
        let layer = |rank| MergedLayer {
            module: "to_q".to_owned(),
            rank,
            norm: 0.5,
        };
        let merge = MergeRow {
            name: "mean".to_owned(),
            method: "mean".to_owned(),
            inputs: vec![("coco".to_owned(), 1.0), ("whoops".to_owned(), 0.5)],
            norm: 1.0,
            truncation_error: 0.0,
            self_check: 1e-7,
            layers: vec![layer(8), layer(160)],
        };
        assert_eq!(merge.ranks(), "8 to 160");
        assert_eq!(merge.of(), "coco, 0.5 \u{d7} whoops");
        assert!(layers(&merge, 0.0).contains("v-0h"));
        assert!(layers(&merge, 1.0).contains("M1 1h.8v-0.5h-.8z"));
    }
}
