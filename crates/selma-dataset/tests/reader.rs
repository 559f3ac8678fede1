//! Reading datasets, those of others too, and refusing what is not one.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::fs;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use selma_dataset::{Dataset, DatasetError, DatasetWriter, METADATA_FILE, Provenance};

fn metadata(root: &Path, rows: &str) {
    fs::write(root.join(METADATA_FILE), rows).unwrap();
}

#[test]
fn the_users_own_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let grey = GrayImage::from_pixel(16, 8, Luma([90]));
    DynamicImage::from(grey)
        .save_with_format(root.join("grey.JPG"), ImageFormat::Jpeg)
        .unwrap();
    let clear = RgbaImage::from_pixel(3, 2, Rgba([10, 20, 30, 0]));
    clear.save(root.join("clear.png")).unwrap();
    // The name says PNG, the bytes WebP: the bytes count.
    clear
        .save_with_format(root.join("webp.png"), ImageFormat::WebP)
        .unwrap();
    metadata(
        root,
        "{\"text\":\"grey\",\"file_name\":\"grey.JPG\",\"score\":0.5}\n\
         {\"file_name\":\"clear.png\",\"text\":\"\",\"provenance\":null}\n\
         {\"file_name\":\"webp.png\",\"text\":\"w\",\"provenance\":{\"skill\":\"mine\",\"seed\":7}}",
    );

    let dataset = Dataset::open(root).unwrap();
    assert_eq!(dataset.root(), root);
    let names: Vec<_> = dataset
        .iter()
        .map(|sample| sample.file_name.as_str())
        .collect();
    assert_eq!(names, ["grey.JPG", "clear.png", "webp.png"]);
    assert_eq!(dataset.get(0).unwrap().extra["score"], 0.5);
    assert_eq!(dataset.get(1).unwrap().provenance, None);
    let provenance = Provenance {
        skill: "mine".into(),
        seed: 7,
        ..Provenance::default()
    };
    assert_eq!(dataset.get(2).unwrap().provenance, Some(provenance));
    assert_eq!(
        dataset.image(0).unwrap(),
        RgbImage::from_pixel(16, 8, Rgb([90; 3]))
    );
    for index in [1, 2] {
        assert_eq!(
            dataset.image(index).unwrap(),
            RgbImage::from_pixel(3, 2, Rgb([10, 20, 30]))
        );
    }
    assert!(dataset.get(3).is_none());
    let error = dataset.image(3).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("sample 3 of {} does not exist: there are 3", root.display())
    );
}

#[test]
fn photographs_are_turned_upright() {
    let dir = tempfile::tempdir().unwrap();
    // EXIF orientation 6: the picture's top is the file's left edge.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut jpeg = Vec::new();
    let lying = RgbImage::from_fn(16, 8, |x, _| Rgb([if x < 8 { 0 } else { 255 }; 3]));
    lying
        .write_to(&mut std::io::Cursor::new(&mut jpeg), ImageFormat::Jpeg)
        .unwrap();
    let mut with_exif = vec![0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2];
    with_exif.extend_from_slice(exif);
    with_exif.extend_from_slice(&jpeg[2..]);
    fs::write(dir.path().join("a.jpg"), with_exif).unwrap();
    metadata(dir.path(), "{\"file_name\":\"a.jpg\",\"text\":\"\"}\n");
    let image = Dataset::open(dir.path()).unwrap().image(0).unwrap();
    assert_eq!(image.dimensions(), (8, 16));
    assert!(image.get_pixel(4, 1)[0] < 40 && image.get_pixel(4, 14)[0] > 215);
}

#[test]
fn rows_that_point_elsewhere_are_refused_even_if_something_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    fs::create_dir(&root).unwrap();
    let outside = dir.path().join("outside.png");
    RgbImage::new(1, 1).save(&outside).unwrap();
    for name in [
        "../outside.png",
        &outside.to_string_lossy(),
        "file:///outside.png",
        "https://example.org/a.png",
    ] {
        metadata(
            &root,
            &format!("{{\"file_name\":\"{name}\",\"text\":\"\"}}\n"),
        );
        let error = Dataset::open(&root).unwrap_err();
        assert!(
            matches!(
                &error,
                DatasetError::Field { line: 1, field, .. } if field == "file_name"
            ),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&*root.join(METADATA_FILE).to_string_lossy()),
            "{error}"
        );
    }
}

#[test]
fn missing_and_damaged_images_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    metadata(root, "{\"file_name\":\"a.png\",\"text\":\"\"}\n");
    let error = Dataset::open(root).unwrap_err().to_string();
    let path = root.join("a.png");
    let expected = format!(
        "{}, line 1: there is no image {}",
        root.join(METADATA_FILE).display(),
        path.display()
    );
    assert_eq!(error, expected);

    fs::create_dir(&path).unwrap();
    assert!(matches!(
        Dataset::open(root),
        Err(DatasetError::MissingImage { .. })
    ));
    fs::remove_dir(&path).unwrap();

    RgbImage::new(9, 9).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 20], b"no picture", b""] {
        fs::write(&path, damaged).unwrap();
        let error = Dataset::open(root)
            .unwrap()
            .image(0)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot decode the image {}: ", path.display())),
            "{error}"
        );
    }
}

#[test]
fn a_changed_image_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    writer
        .push("a.png", &RgbImage::new(2, 2), "", Provenance::default())
        .unwrap();
    writer.finish().unwrap();
    RgbImage::new(3, 3).save(dir.path().join("a.png")).unwrap();
    let error = Dataset::open(dir.path()).unwrap().image(0).unwrap_err();
    assert!(matches!(error, DatasetError::ImageHash { .. }), "{error}");
}

#[test]
fn folders_that_are_no_dataset_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for root in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let error = Dataset::open(&root).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "cannot read {}: ",
                root.join(METADATA_FILE).display()
            )),
            "{error}"
        );
    }
}

fn provenance() -> impl Strategy<Value = Provenance> {
    let names = (
        any::<String>(),
        any::<String>(),
        any::<String>(),
        any::<String>(),
        any::<String>(),
    );
    let numbers = (
        any::<u64>(),
        any::<u32>(),
        -1e300_f64..1e300,
        any::<u32>(),
        any::<u32>(),
    );
    let optional = (
        any::<Option<String>>(),
        prop::collection::vec(any::<String>(), 0..3),
    );
    (names, numbers, optional).prop_map(
        |(
            (skill, prompt_id, model, model_hash, scheduler),
            (seed, steps, guidance, width, height),
            (negative_prompt, adapters),
        )| Provenance {
            skill,
            prompt_id,
            model,
            model_hash,
            seed,
            scheduler,
            steps,
            guidance,
            width,
            height,
            negative_prompt,
            adapters,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_written_reads_back(
        text in any::<String>(),
        provenance in provenance(),
        (width, height) in (1_u32..9, 1_u32..9),
        seed in any::<u32>(),
    ) {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let bits = (seed ^ (x << 8 | y)).wrapping_mul(0x9E37_79B9).to_le_bytes();
            Rgb([bits[1], bits[2], bits[3]])
        });
        let dir = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::open(dir.path()).unwrap();
        writer.push("a.png", &image, &text, provenance.clone()).unwrap();
        writer.finish().unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        let sample = dataset.get(0).unwrap();
        prop_assert_eq!(&sample.text, &text);
        prop_assert_eq!(sample.provenance.as_ref(), Some(&provenance));
        prop_assert!(sample.extra.is_empty());
        prop_assert_eq!(dataset.image(0).unwrap(), image);
    }
}
