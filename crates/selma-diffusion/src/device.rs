//! Choosing a device by name.

use burn::tensor::Device;

use crate::DiffusionError;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::error::first_line;

/// What can be done where there is no graphics adapter.
#[cfg(feature = "wgpu")]
const NO_ADAPTER: &str = "no graphics adapter with a driver for Vulkan, Metal or DirectX 12 was found; install the \
    driver of the GPU's maker (`vulkaninfo --summary` then lists it), or one that computes on the CPU, such as Mesa's \
    lavapipe (Debian's package mesa-vulkan-drivers)";

/// What can be done where there is no NVIDIA GPU.
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "told by its test alone")
)]
const NO_CUDA: &str = "no NVIDIA GPU with a driver was found; install NVIDIA's driver, which brings libcuda \
    (`nvidia-smi` then lists the GPU); a container has to be given the GPU (`--gpus all`), and CUDA_VISIBLE_DEVICES must \
    not hide it";

/// The device of a name: `flex` (the CPU), `wgpu`, `cuda` or `cuda:N`.
///
/// A GPU is asked to compute something small, so that one that cannot is found here and not in the midst of a model.
///
/// # Errors
///
/// [`DiffusionError::Device`] if the name is none of these, if this build lacks the backend, or if there is no such GPU
/// or no working driver for it; the error says which feature or driver is missing and how to get it.
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
    let found = match kind {
        "flex" | "cpu" => flex(),
        "wgpu" => wgpu(),
        "cuda" => cuda(index),
        _ => Err("expected flex, wgpu, cuda or cuda:N".to_owned()),
    };
    found.map_err(error)
}

#[cfg(feature = "flex")]
fn flex() -> Result<Device, String> {
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device, String> {
    Err(not_built("flex"))
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, String> {
    use burn::tensor::{DeviceKind, DeviceType};
    if Device::enumerate(DeviceType::Wgpu).is_empty() {
        return Err(NO_ADAPTER.to_owned());
    }
    probed(Device::wgpu(DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device, String> {
    Err(not_built("wgpu"))
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    in_range(
        index,
        Device::enumerate(burn::tensor::DeviceType::Cuda).len(),
    )?;
    probed(Device::cuda(index)).map_err(|reason| {
        format!("{reason}; kernels are compiled when they are first used, by libnvrtc of the CUDA toolkit, which must be on the library path")
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device, String> {
    Err(not_built("cuda"))
}

#[allow(dead_code, reason = "a build with all backends lacks none of them")]
fn not_built(feature: &str) -> String {
    let here = [
        (cfg!(feature = "flex"), "flex"),
        (cfg!(feature = "wgpu"), "wgpu"),
        (cfg!(feature = "cuda"), "cuda"),
    ];
    let here: Vec<&str> = here
        .into_iter()
        .filter_map(|(built, name)| built.then_some(name))
        .collect();
    format!(
        "this program was built without it; build with `--features {feature}`. It has: {}",
        if here.is_empty() {
            "no device at all".to_owned()
        } else {
            here.join(", ")
        }
    )
}

#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "called by its test alone")
)]
fn in_range(index: usize, found: usize) -> Result<(), String> {
    match found {
        0 => Err(NO_CUDA.to_owned()),
        _ if index < found => Ok(()),
        1 => Err("there is one NVIDIA GPU, cuda:0".to_owned()),
        _ => Err(format!(
            "there are {found} NVIDIA GPUs, cuda:0 to cuda:{}",
            found - 1
        )),
    }
}

/// Has the device compute something, since burn opens it only then, and panics if it cannot.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn probed(device: Device) -> Result<Device, String> {
    use burn::tensor::Tensor;
    let computed = std::panic::catch_unwind(|| {
        let sum = Tensor::<1>::ones([2], &device).exp().sum();
        sum.try_into_data().map(drop)
    });
    match computed {
        Ok(Ok(())) => Ok(device),
        Ok(Err(error)) => Err(format!(
            "it is there but cannot compute: {}",
            first_line(error)
        )),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("no reason given");
            Err(format!(
                "it is there but cannot be opened: {}",
                first_line(text)
            ))
        }
    }
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

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_was_not_built_names_its_feature() {
        let error = device("cuda:1").unwrap_err().to_string();
        let expected = "device \"cuda:1\": this program was built without it; build with `--features cuda`. It has: ";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_from_a_wrong_number() {
        assert_eq!(in_range(1, 2), Ok(()));
        assert!(in_range(0, 0).unwrap_err().contains("libcuda"));
        assert_eq!(
            in_range(1, 1).unwrap_err(),
            "there is one NVIDIA GPU, cuda:0"
        );
        let two = in_range(2, 2).unwrap_err();
        assert_eq!(two, "there are 2 NVIDIA GPUs, cuda:0 to cuda:1");
    }
}
