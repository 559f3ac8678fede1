//! How much memory the program has.

use std::fs;

/// Bytes of memory that are the program's now, where the system tells it as Linux does; mapped files that were read count, too.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_in_use_shows() {
        let block = vec![1_u8; 64 << 20];
        let bytes = resident().unwrap();
        assert!(bytes >= 64 << 20, "{bytes}");
        assert_eq!(block.last(), Some(&1));
    }
}
