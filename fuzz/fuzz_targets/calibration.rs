//! Files of the statistics of SSR-Merge.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::merge::Calibration;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Ok(calibration) = Calibration::load(file.path()) {
        // What was read can be written and is the same.
        calibration.save(file.path()).unwrap();
        assert_eq!(Calibration::load(file.path()).unwrap(), calibration);
    }
});
