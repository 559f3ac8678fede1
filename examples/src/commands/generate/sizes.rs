//! Sizes that SDXL is told.

use selma_diffusion::pipeline::MicroConditioning;

/// Flags for what SDXL is told about the sizes of a picture.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Sizes that SDXL is told (other models have none)")]
pub struct SizeArgs {
    /// Size before scaling. Default: the picture's. A small one gives a blurred picture.
    #[arg(long, value_name = "WxH", value_parser = size)]
    original_size: Option<[usize; 2]>,
    /// Where a crop begins. Another place than the top left corner gives things that are cut off.
    #[arg(long, value_name = "X,Y", value_parser = place)]
    crop: Option<[usize; 2]>,
    /// Size after cropping. Default: the picture's.
    #[arg(long, value_name = "WxH", value_parser = size)]
    target_size: Option<[usize; 2]>,
    /// What the negative prompt is told instead, together with --negative-target-size.
    #[arg(long, value_name = "WxH", value_parser = size)]
    negative_original_size: Option<[usize; 2]>,
    /// Likewise.
    #[arg(long, value_name = "X,Y", value_parser = place)]
    negative_crop: Option<[usize; 2]>,
    /// See --negative-original-size.
    #[arg(long, value_name = "WxH", value_parser = size)]
    negative_target_size: Option<[usize; 2]>,
}

impl SizeArgs {
    /// What the pipeline takes.
    pub fn micro_conditioning(self) -> MicroConditioning {
        MicroConditioning {
            original_size: self.original_size,
            crops_coords_top_left: self.crop.unwrap_or_default(),
            target_size: self.target_size,
            negative_original_size: self.negative_original_size,
            negative_crops_coords_top_left: self.negative_crop.unwrap_or_default(),
            negative_target_size: self.negative_target_size,
        }
    }
}

/// Height and width of `WIDTHxHEIGHT`.
fn size(text: &str) -> Result<[usize; 2], String> {
    two(text, 'x').ok_or_else(|| "expected WIDTHxHEIGHT in pixels, such as 1024x768".to_owned())
}

/// Row and column of `X,Y`.
fn place(text: &str) -> Result<[usize; 2], String> {
    two(text, ',').ok_or_else(|| "expected X,Y in pixels, such as 0,128".to_owned())
}

fn two(text: &str, between: char) -> Option<[usize; 2]> {
    let (across, down) = text.split_once(between)?;
    Some([down.parse().ok()?, across.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_height_goes_first_inside() {
        assert_eq!(size("1024x768"), Ok([768, 1024]));
        assert_eq!(place("0,128"), Ok([128, 0]));
        for wrong in ["1024", "x768", "1024X768", "-1x5", "1024x768x3", ""] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(place("1x2").is_err());
    }
}
