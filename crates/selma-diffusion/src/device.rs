//! Choosing a device by name.

use burn::tensor::Device;

use crate::DiffusionError;

/// The device of a name: `flex` (the CPU), `wgpu`, `cuda` or `cuda:N`.
///
/// # Errors
///
/// [`DiffusionError::Device`] if the name is none of these, or if this build lacks the backend; the error says which
/// feature has to be enabled.
pub fn device(name: &str) -> Result<Device, DiffusionError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    let error = |reason: String| DiffusionError::Device {
        name: name.to_owned(),
        reason,
    };
    let index = match index {
        None => 0,
        Some(_) if kind != "cuda" => return Err(error("only cuda takes an index".to_owned())),
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| error(format!("expected a number after the colon, found {text:?}")))?,
    };
    match kind {
        "flex" | "cpu" => flex().ok_or_else(|| error(not_built("flex"))),
        "wgpu" => wgpu().ok_or_else(|| error(not_built("wgpu"))),
        "cuda" => cuda(index).ok_or_else(|| error(not_built("cuda"))),
        _ => Err(error("expected flex, wgpu, cuda or cuda:N".to_owned())),
    }
}

fn not_built(feature: &str) -> String {
    format!("this program was built without it; build with `--features {feature}`")
}

#[cfg(feature = "flex")]
fn flex() -> Option<Device> {
    Some(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Option<Device> {
    None
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Option<Device> {
    Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Option<Device> {
    None
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<Device> {
    Some(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Option<Device> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_says_what_is_there() {
        for name in ["gpu", "cuda:x", "flex:1", ""] {
            assert!(
                matches!(device(name), Err(DiffusionError::Device { .. })),
                "{name}"
            );
        }
        device("flex").unwrap();
    }
}
