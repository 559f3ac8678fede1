//! What files call the fields of networks.

use crate::weights::Weights;

/// The key of a field of the text encoder: files with and without the level `text_model.` are in use.
pub(super) fn text_names(weights: &Weights) -> impl Fn(&str) -> String {
    let prefixed = weights.names().any(|name| name.starts_with("text_model."));
    move |path| match path.strip_prefix("text_model.") {
        Some(short) if !prefixed => short.to_owned(),
        _ => path.to_owned(),
    }
}

/// A buffer 0, 1, 2, .. that old versions of transformers saved.
pub(super) fn is_constant(name: &str) -> bool {
    name.ends_with("position_ids")
}

/// The key of a field of the VAE.
pub(super) fn vae_names(weights: &Weights) -> impl Fn(&str) -> String {
    let mut names = weights.names();
    let old = names.any(|name| name.ends_with(".proj_attn.weight"));
    move |path| {
        if old {
            old_attention_name(path)
        } else {
            path.to_owned()
        }
    }
}

/// The names that VAE files of SD 1 and 2 have for the projections of their attention.
fn old_attention_name(path: &str) -> String {
    [
        (".to_q.", ".query."),
        (".to_k.", ".key."),
        (".to_v.", ".value."),
        (".to_out.0.", ".proj_attn."),
    ]
    .iter()
    .fold(path.to_owned(), |path, (new, old)| path.replace(new, old))
}
