//! What a pickle can hold.

use safetensors::Dtype;

/// A value. Containers are numbers into [`Objects`], so that neither a deep nor a cyclic structure needs recursion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::weights::torch) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(&'a str),
    Bytes,
    List(usize),
    Tuple(usize),
    Dict(usize),
    /// A function or class.
    Global(Global<'a>),
    Storage(usize),
    Tensor(usize),
    /// What a function that was not called would have made.
    Opaque(Global<'a>),
}

/// A name of Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::weights::torch) struct Global<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

impl Global<'_> {
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// The numbers of one or several tensors.
#[derive(Debug, Clone, Copy)]
pub(in crate::weights::torch) struct Storage<'a> {
    /// Its name in the checkpoint.
    pub(in crate::weights::torch) key: &'a str,
    /// Type of the numbers; `None` for a kind that weights do not have, such as quantised integers.
    pub(in crate::weights::torch) dtype: Option<Dtype>,
    /// Count of the numbers.
    pub(in crate::weights::torch) len: usize,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(in crate::weights::torch) struct Tensor<'a> {
    pub(in crate::weights::torch) storage: Storage<'a>,
    /// Elements before the first.
    pub(in crate::weights::torch) offset: usize,
    pub(in crate::weights::torch) shape: Vec<usize>,
    pub(in crate::weights::torch) strides: Vec<usize>,
}

/// All containers, tensors and storages of a pickle.
#[derive(Debug, Default)]
pub(in crate::weights::torch) struct Objects<'a> {
    /// Lists and tuples.
    pub(super) sequences: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor<'a>>,
}

impl<'a> Objects<'a> {
    pub(super) fn add_sequence(&mut self, items: Vec<Value<'a>>) -> usize {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    pub(super) fn add_dict(&mut self, items: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(items);
        Value::Dict(self.dicts.len() - 1)
    }

    /// Items of a list or tuple.
    pub(in crate::weights::torch) fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(id) | Value::Tuple(id) => self.sequences.get(id).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Items of a dictionary.
    pub(in crate::weights::torch) fn dict(
        &self,
        value: Value<'a>,
    ) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(id) => self.dicts.get(id).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The last value that a dictionary has for a name.
    pub(in crate::weights::torch) fn get(&self, dict: Value<'a>, name: &str) -> Option<Value<'a>> {
        let items = self.dict(dict)?.iter().rev();
        let mut named = items.filter(|(key, _)| *key == Value::Str(name));
        named.next().map(|&(_, value)| value)
    }

    pub(in crate::weights::torch) fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    pub(super) fn storage(&self, value: Value<'a>) -> Option<Storage<'a>> {
        match value {
            Value::Storage(id) => self.storages.get(id).copied(),
            _ => None,
        }
    }

    pub(in crate::weights::torch) fn tensor(&self, value: Value<'a>) -> Option<&Tensor<'a>> {
        match value {
            Value::Tensor(id) => self.tensors.get(id),
            _ => None,
        }
    }

    /// What a value is, for an error.
    pub(in crate::weights::torch) fn describe(&self, value: Value<'a>) -> String {
        match value {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a truth value".to_owned(),
            Value::Int(number) => format!("the integer {number}"),
            Value::Float => "a number".to_owned(),
            Value::Str(_) => "a text".to_owned(),
            Value::Bytes => "bytes".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::Dict(_) => "a dictionary".to_owned(),
            Value::Global(global) => format!("the name {}", global.full_name()),
            Value::Storage(_) => "a storage without a tensor".to_owned(),
            Value::Tensor(_) => "a tensor".to_owned(),
            Value::Opaque(global) => {
                format!(
                    "what {} would make, which is not called",
                    global.full_name()
                )
            }
        }
    }
}
