//! Converts an adapter file or folder of PEFT: `convert IN OUT FORMAT [DTYPE]`.

use std::error::Error;

use selma_lora::{Adapter, Dtype, Format};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (input, output, format, dtype) = match arguments.as_slice() {
        [input, output, format] => (input, output, format, "f32"),
        [input, output, format, dtype] => (input, output, format, dtype.as_str()),
        _ => {
            return Err(
                "usage: convert IN OUT kohya|diffusers|diffusers_script|peft [f32|f16|bf16]".into(),
            );
        }
    };
    let adapter = Adapter::load(input)?;
    adapter.save(output, format.parse::<Format>()?, dtype.parse::<Dtype>()?)?;
    Ok(())
}
