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
pub(crate) fn is_constant(name: &str) -> bool {
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

/// The names that VAE files of SD 1 and 2 have for the projections of their attention, each behind the new one.
const ATTENTION: [(&str, &str); 4] = [
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
];

fn old_attention_name(path: &str) -> String {
    let rename = |path: String, (new, old): &(&str, &str)| path.replace(new, old);
    ATTENTION.iter().fold(path.to_owned(), rename)
}

/// The field of the VAE that a key is for, whichever names its file has.
pub(super) fn new_attention_name(key: &str) -> String {
    let rename = |key: String, (new, old): &(&str, &str)| key.replace(old, new);
    ATTENTION.iter().fold(key.to_owned(), rename)
}
