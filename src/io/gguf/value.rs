//! The values of GGUF's keys.

/// A value, of the types that are written here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    Texts(Vec<String>),
}

/// The specification's numbers of the types.
mod id {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
}

impl Value {
    /// Appends type and value.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut type_id = |id: u32| out.extend(id.to_le_bytes());
        match self {
            Self::U32(value) => {
                type_id(id::U32);
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                type_id(id::F32);
                out.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                type_id(id::BOOL);
                out.push(u8::from(*value));
            }
            Self::Text(text) => {
                type_id(id::TEXT);
                put_text(out, text);
            }
            Self::I32s(values) => {
                [id::ARRAY, id::I32].into_iter().for_each(&mut type_id);
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Texts(texts) => {
                [id::ARRAY, id::TEXT].into_iter().for_each(&mut type_id);
                out.extend((texts.len() as u64).to_le_bytes());
                texts.iter().for_each(|text| put_text(out, text));
            }
        }
    }
}

/// Appends a text: its length in bytes, then these.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F32(value as f32)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
