//! How much memory an example has used.

use std::error::Error;

/// The most memory that this process has held so far, as Linux counts it.
pub(crate) fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes
        .ok_or("Linux does not tell the memory")?
        .trim()
        .parse()?;
    Ok(1024 * kibibytes)
}
