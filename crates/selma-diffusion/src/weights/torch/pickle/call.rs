//! The functions that a pickle may name, and what stands for their results.

use safetensors::Dtype;

use super::value::{Global, Objects, Storage, Tensor, Value};

/// More dimensions than any tensor of a model has. Without a limit a short pickle could have a long shape copied often.
const MOST_DIMENSIONS: usize = 16;

/// What `function(*arguments)` gives. Only what makes dictionaries and tensors is known; everything else is a name.
pub(super) fn call<'a>(
    objects: &mut Objects<'a>,
    function: Global<'a>,
    arguments: Value<'a>,
) -> Value<'a> {
    let given = objects.sequence(arguments).unwrap_or_default();
    let made = match (function.module, function.name) {
        ("collections", "OrderedDict") if given.is_empty() => Some(objects.add_dict(Vec::new())),
        ("torch._utils", "_rebuild_tensor_v2") => rebuild_tensor(objects, arguments),
        ("torch._utils", "_rebuild_parameter") => given.first().copied(),
        _ => None,
    };
    made.unwrap_or(Value::Opaque(function))
}

/// `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks, metadata=None)`.
fn rebuild_tensor<'a>(objects: &mut Objects<'a>, arguments: Value<'a>) -> Option<Value<'a>> {
    let &[storage, offset, size, stride, ..] = objects.sequence(arguments)? else {
        return None;
    };
    let storage = objects.storage(storage)?;
    let sizes = |value| {
        let items = objects.sequence(value)?;
        if items.len() > MOST_DIMENSIONS {
            return None;
        }
        let numbers = items.iter().map(|&item| unsigned(item));
        numbers.collect::<Option<Vec<_>>>()
    };
    let (shape, strides) = (sizes(size)?, sizes(stride)?);
    if shape.len() != strides.len() {
        return None;
    }
    objects.tensors.push(Tensor {
        storage,
        offset: unsigned(offset)?,
        shape,
        strides,
    });
    Some(Value::Tensor(objects.tensors.len() - 1))
}

/// `('storage', storage class, key, location, count, ..)`, what a persistent id is in a checkpoint.
pub(super) fn storage<'a>(objects: &mut Objects<'a>, id: Value<'a>) -> Option<Value<'a>> {
    let items = objects.sequence(id)?;
    let &[
        Value::Str("storage"),
        Value::Global(class),
        Value::Str(key),
        Value::Str(_),
        count,
        ref rest @ ..,
    ] = items
    else {
        return None;
    };
    // Before 1.6 a storage could be a view of another one.
    if rest.iter().any(|&item| item != Value::None) {
        return None;
    }
    let storage = Storage {
        key,
        dtype: dtype(class),
        len: unsigned(count)?,
    };
    objects.storages.push(storage);
    Some(Value::Storage(objects.storages.len() - 1))
}

fn dtype(class: Global<'_>) -> Option<Dtype> {
    if class.module != "torch" {
        return None;
    }
    Some(match class.name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

fn unsigned(value: Value<'_>) -> Option<usize> {
    match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// Whether Python would run a program, load code, or touch files or the network by calling this.
///
/// Nothing is ever called here; a file with such a name was made to do harm, and what else it says is not believed.
pub(super) fn is_harmful(global: Global<'_>) -> bool {
    const MODULES: [&str; 22] = [
        "asyncio",
        "cffi",
        "commands",
        "ctypes",
        "http",
        "importlib",
        "marshal",
        "multiprocessing",
        "nt",
        "os",
        "pickle",
        "pip",
        "posix",
        "pty",
        "requests",
        "runpy",
        "shutil",
        "socket",
        "subprocess",
        "sys",
        "urllib",
        "webbrowser",
    ];
    const BUILTINS: [&str; 8] = [
        "__import__",
        "apply",
        "breakpoint",
        "compile",
        "eval",
        "exec",
        "execfile",
        "open",
    ];
    let package = global.module.split('.').next().unwrap_or_default();
    match package {
        "builtins" | "__builtin__" | "__builtins__" => BUILTINS.contains(&global.name),
        _ => MODULES.contains(&package),
    }
}
