//! PyTorch files that tests make of tensors, as `torch.save` writes them: a zip archive of a pickle and of the numbers.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(clippy::panic, reason = "a test fails by a panic, in its helpers too")]

use safetensors::Dtype;

use super::files::Tensors;

/// A file of these tensors. With a step it is a training checkpoint, which has them under `state_dict`.
pub fn torch_file(tensors: &Tensors, global_step: Option<u32>) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    if let Some(step) = global_step {
        string(&mut pickle, "global_step");
        integer(&mut pickle, step as usize);
        string(&mut pickle, "state_dict");
        pickle.extend(b"}(");
    }
    let mut records = Vec::new();
    for (key, (name, (dtype, shape, bytes))) in tensors.iter().enumerate() {
        string(&mut pickle, name);
        tensor(&mut pickle, key, *dtype, shape);
        records.push((format!("archive/data/{key}"), bytes.as_slice()));
    }
    pickle.extend(if global_step.is_some() {
        b"uu.".as_slice()
    } else {
        b"u."
    });
    records.insert(0, ("archive/data.pkl".to_owned(), &pickle));
    zip(&records)
}

fn string(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn integer(pickle: &mut Vec<u8>, value: usize) {
    pickle.push(b'J');
    pickle.extend((value as u32).to_le_bytes());
}

fn integers(pickle: &mut Vec<u8>, values: &[usize]) {
    pickle.push(b'(');
    for &value in values {
        integer(pickle, value);
    }
    pickle.push(b't');
}

/// `torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`.
fn tensor(pickle: &mut Vec<u8>, key: usize, dtype: Dtype, shape: &[usize]) {
    let storage = match dtype {
        Dtype::F32 => "Float",
        Dtype::F16 => "Half",
        Dtype::I64 => "Long",
        other => panic!("no storage for {other:?}"),
    };
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    string(pickle, "storage");
    pickle.extend(format!("ctorch\n{storage}Storage\n").as_bytes());
    string(pickle, &key.to_string());
    string(pickle, "cpu");
    integer(pickle, shape.iter().product());
    pickle.extend(b"tQ");
    integer(pickle, 0);
    integers(pickle, shape);
    let strides = (1..=shape.len()).map(|at| shape.iter().skip(at).product());
    integers(pickle, &strides.collect::<Vec<usize>>());
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

/// An archive of stored records, without their checksums.
fn zip(records: &[(String, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in records {
        let start = file.len() as u32;
        let (length, name_length) = (bytes.len() as u32, name.len() as u16);
        // Version, flags, method, time, date and checksum; both sizes; the lengths of the name and of what follows it.
        let mut common = vec![0; 14];
        common.extend(length.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(name_length.to_le_bytes());
        common.extend([0; 2]);
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (file.len() as u32, records.len() as u16);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}
