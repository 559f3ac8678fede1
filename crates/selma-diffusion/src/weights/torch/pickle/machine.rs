//! The stack machine.

use std::collections::HashMap;

use super::PickleError;
use super::call::{call, is_harmful, storage};
use super::reader::Reader;
use super::value::{Global, Objects, Value};

/// What a pickle holds, and how many bytes it has.
#[derive(Debug)]
pub(in crate::weights::torch) struct Unpickled<'a> {
    pub(in crate::weights::torch) value: Value<'a>,
    pub(in crate::weights::torch) objects: Objects<'a>,
    pub(in crate::weights::torch) length: usize,
}

/// Reads the pickle at the start of `bytes`.
///
/// Every step costs memory for at most what it reads, so a pickle of `n` bytes needs a small multiple of `n`.
///
/// # Errors
///
/// If the bytes are no pickle, use an instruction that PyTorch does not write, or name a harmful function.
pub(in crate::weights::torch) fn unpickle(bytes: &[u8]) -> Result<Unpickled<'_>, PickleError> {
    let mut machine = Machine {
        reader: Reader::new(bytes),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Objects::default(),
    };
    let value = machine.run()?;
    Ok(Unpickled {
        value,
        length: machine.reader.offset(),
        objects: machine.objects,
    })
}

struct Machine<'a> {
    reader: Reader<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Objects<'a>,
}

impl<'a> Machine<'a> {
    /// Runs to the instruction `STOP`. The letters are those of Python's `pickletools`.
    fn run(&mut self) -> Result<Value<'a>, PickleError> {
        loop {
            match self.reader.u8()? {
                // PROTO, FRAME
                0x80 => drop(self.reader.u8()?),
                0x95 => drop(self.reader.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.pop()?;
                    self.stack.extend([top, top]);
                }
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                opcode @ (b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G') => self.number(opcode)?,
                opcode @ (b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96) => {
                    self.text(opcode)?;
                }
                opcode @ (b']' | b'l' | b'a' | b'e' | 0x8f | 0x90 | 0x91) => self.list(opcode)?,
                opcode @ (b')' | b't' | 0x85..=0x87) => self.tuple(opcode)?,
                opcode @ (b'}' | b'd' | b's' | b'u') => self.dict(opcode)?,
                opcode @ (b'q' | b'r' | 0x94 | b'h' | b'j') => self.memoize(opcode)?,
                opcode @ (b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'o' | b'i' | b'b' | b'Q') => {
                    self.object(opcode)?;
                }
                other => {
                    return Err(self.reader.broken(
                        "an instruction that PyTorch writes",
                        format!("instruction {other:#04x}"),
                    ));
                }
            }
        }
    }

    /// BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'J' => Value::Int(self.reader.i32()?.into()),
            b'K' => Value::Int(self.reader.u8()?.into()),
            b'M' => Value::Int(self.reader.u16()?.into()),
            b'G' => {
                self.reader.take(8)?;
                Value::Float
            }
            _ => {
                let length = match opcode {
                    0x8a => self.reader.length_u8()?,
                    _ => self.reader.length_u32()?,
                };
                let bytes = self.reader.take(length)?;
                // Longer ones are hashes and magic numbers, never sizes.
                long(bytes).map_or(Value::Bytes, Value::Int)
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, BINSTRING, SHORT_BINSTRING, BINBYTES, SHORT_BINBYTES, BINBYTES8,
    /// BYTEARRAY8
    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            0x8c | b'U' | b'C' => self.reader.length_u8()?,
            b'X' | b'T' | b'B' => self.reader.length_u32()?,
            _ => self.reader.length_u64()?,
        };
        let value = match opcode {
            b'X' | 0x8c | 0x8d => Value::Str(self.reader.text(length)?),
            // Python 2 wrote names as byte strings.
            b'T' | b'U' => {
                std::str::from_utf8(self.reader.take(length)?).map_or(Value::Bytes, Value::Str)
            }
            _ => {
                self.reader.take(length)?;
                Value::Bytes
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// EMPTY_LIST, LIST, APPEND, APPENDS; and the sets EMPTY_SET, ADDITEMS, FROZENSET, which are lists here
    fn list(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b']' | 0x8f => {
                let list = self.objects.add_sequence(Vec::new());
                self.stack.push(Value::List(list));
            }
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                let list = self.objects.add_sequence(items);
                self.stack.push(Value::List(list));
            }
            _ => {
                let items = if opcode == b'a' {
                    vec![self.pop()?]
                } else {
                    self.pop_mark()?
                };
                match self.top()? {
                    Value::List(id) => {
                        if let Some(list) = self.objects.sequences.get_mut(id) {
                            list.extend(items);
                        }
                    }
                    // Items of an object that was not made.
                    Value::Opaque(_) => {}
                    other => return Err(self.unexpected("a list", other)),
                }
            }
        }
        Ok(())
    }

    /// EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
    fn tuple(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => {
                let count = usize::from(opcode - 0x84);
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        let tuple = self.objects.add_sequence(items);
        self.stack.push(Value::Tuple(tuple));
        Ok(())
    }

    /// EMPTY_DICT, DICT, SETITEM, SETITEMS
    fn dict(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'}' => Vec::new(),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.reader.broken("a value for every key", "a key alone"));
        }
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        if matches!(opcode, b'}' | b'd') {
            let dict = self.objects.add_dict(pairs.collect());
            self.stack.push(dict);
            return Ok(());
        }
        match self.top()? {
            Value::Dict(id) => {
                if let Some(dict) = self.objects.dicts.get_mut(id) {
                    dict.extend(pairs);
                }
            }
            // Items of an object that was not made.
            Value::Opaque(_) => {}
            other => return Err(self.unexpected("a dictionary", other)),
        }
        Ok(())
    }

    /// BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
    fn memoize(&mut self, opcode: u8) -> Result<(), PickleError> {
        let number = match opcode {
            b'q' | b'h' => self.reader.u8()?.into(),
            b'r' | b'j' => self.reader.u32()?,
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let Some(&value) = self.memo.get(&number) else {
                let found = format!("a reference to number {number}");
                return Err(self.reader.broken("a value that was remembered", found));
            };
            self.stack.push(value);
        } else {
            let value = self.top()?;
            self.memo.insert(number, value);
        }
        Ok(())
    }

    /// GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST, BUILD, BINPERSID
    fn object(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'c' => {
                let module = self.reader.line()?;
                let name = self.reader.line()?;
                Value::Global(self.global(module, name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Str(module), Value::Str(name)) = (module, name) else {
                    return Err(self.unexpected("a name", name));
                };
                Value::Global(self.global(module, name)?)
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?
            }
            0x92 => {
                let (_keywords, arguments, function) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(function, arguments)?
            }
            b'o' | b'i' => {
                let items = self.pop_mark()?;
                match (opcode, items.split_first()) {
                    (b'o', Some((&class, _))) => self.call(class, Value::None)?,
                    (b'o', None) => return Err(self.reader.broken("a class", "nothing")),
                    _ => {
                        let module = self.reader.line()?;
                        let name = self.reader.line()?;
                        Value::Opaque(self.global(module, name)?)
                    }
                }
            }
            b'b' => {
                // The state of an object, or the attributes of a dictionary (`_metadata` in those of PyTorch's modules).
                let _state = self.pop()?;
                self.pop()?
            }
            _ => {
                let id = self.pop()?;
                match storage(&mut self.objects, id) {
                    Some(storage) => storage,
                    None => return Err(self.unexpected("the name of a storage", id)),
                }
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn global(&self, module: &'a str, name: &'a str) -> Result<Global<'a>, PickleError> {
        let global = Global { module, name };
        if is_harmful(global) {
            let name = global.full_name();
            return Err(PickleError::Unsafe { name });
        }
        Ok(global)
    }

    fn call(
        &mut self,
        function: Value<'a>,
        arguments: Value<'a>,
    ) -> Result<Value<'a>, PickleError> {
        match function {
            Value::Global(function) => Ok(call(&mut self.objects, function, arguments)),
            Value::Opaque(_) => Ok(function),
            other => Err(self.unexpected("a function", other)),
        }
    }

    fn top(&self) -> Result<Value<'a>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or_default();
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => Err(self.reader.broken("a value on the stack", "none")),
        }
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => Err(self.reader.broken("a mark on the stack", "none")),
        }
    }

    fn unexpected(&self, expected: &'static str, found: Value<'a>) -> PickleError {
        self.reader.broken(expected, self.objects.describe(found))
    }
}

/// A little-endian two's complement integer, if it fits.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let mut word = [fill; 8];
    word.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(word))
}
