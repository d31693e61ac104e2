//! Attention on a device: `kernels/attention_forward.cu` and `kernels/attention_backward.cu`; in f32 `kernels/attention_f32.cu`.

use crate::error::{Error, Result};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, ElementType, Slice, SliceMut};

/// The widest head that the kernels take.
pub const MAX_WIDTH: usize = 256;
/// Rows begin at multiples of so many bytes.
const ALIGNMENT: usize = 16;

/// Sizes of one attention, as in [`Attention`](super::Attention).
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens of each, T.
    pub seq_len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Columns of a head of q and k: a multiple of 8.
    pub head_dim: usize,
    /// Columns of a head of v and o: a multiple of 8.
    pub value_dim: usize,
    /// Multiplies the scores; above 0.
    pub scale: f64,
}

/// Heads side by side in the rows of a matrix, one for each token, that begin `pitch` elements apart: all of it, or some columns.
#[derive(Debug, Clone, Copy)]
pub struct Heads<T> {
    /// From the first row's first head on.
    pub data: T,
    /// A multiple of 8.
    pub pitch: usize,
}

/// What attention reads: `q` `[B·T, heads·D]`, `k` `[B·T, kv_heads·D]`, `v` `[B·T, kv_heads·Dv]`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: Heads<ElementSlice<'a>>,
    /// Keys.
    pub k: Heads<ElementSlice<'a>>,
    /// Values.
    pub v: Heads<ElementSlice<'a>>,
}

/// What changes which probabilities count, all on the device, so that a captured launch finds the step's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Masks<'a> {
    /// Documents that lie one after the other in a row.
    pub documents: Option<Documents<'a>>,
    /// 0 where a token is padding, `[B, T]`.
    pub padding: Option<Slice<'a, i32>>,
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout<'a>>,
}

/// The tokens of each token's document, `[B, T]` each.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    /// The first, in its row; never falling along a row.
    pub starts: Slice<'a, i32>,
    /// One past the last: [`document_ends`](super::documents::document_ends) of the starts.
    pub ends: Slice<'a, i32>,
}

/// The numbers that [`DropoutMask`](crate::ops::dropout::DropoutMask) draws from.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// Probability of dropping, in [0, 1).
    pub p: f64,
    /// The generator's key, `[1]`.
    pub key: Slice<'a, u64>,
    /// `[B]`
    pub sample_ids: Slice<'a, u64>,
}

/// What [`backward`] reads beside the inputs.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// `[B·T, heads·Dv]`, what [`forward`] gave.
    pub o: ElementSlice<'a>,
    /// `[B, kv_heads, T, heads/kv_heads]`, likewise.
    pub lse: Slice<'a, f32>,
    /// `[B·T, heads·Dv]`, the gradient of o.
    pub d_o: ElementSlice<'a>,
}

/// What [`backward`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub dq: Heads<ElementSliceMut<'a>>,
    /// Of the keys.
    pub dk: Heads<ElementSliceMut<'a>>,
    /// Of the values.
    pub dv: Heads<ElementSliceMut<'a>>,
    /// Workspace, `[B, kv_heads, T, heads/kv_heads]`.
    pub delta: SliceMut<'a, f32>,
}

/// Integer arguments and macros that all kernels share.
struct Plan {
    batch: i32,
    seq_len: i32,
    heads: i32,
    kv_heads: i32,
    dropped_below: u32,
    kept_scale: f32,
    defines: Vec<(&'static str, i64)>,
}

impl Extents {
    /// Elements of a row that one token has in o.
    fn cols_out(self) -> usize {
        self.heads * self.value_dim
    }

    fn plan(self, masks: &Masks<'_>) -> Result<Plan> {
        let Self { batch, seq_len, heads, kv_heads, head_dim, value_dim, scale } = self;
        let fail = |message: String| Err(Error::device(format!("attention: {message}")));
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) || batch == 0 || seq_len == 0 {
            return fail(format!(
                "batch {batch}, {seq_len} tokens, {heads} heads over {kv_heads}: none may be 0, and heads are a multiple"
            ));
        }
        for (name, width) in [("q and k", head_dim), ("v", value_dim)] {
            if !width.is_multiple_of(8) || !(8..=MAX_WIDTH).contains(&width) {
                return fail(format!("heads of {width} columns in {name}: the kernels take multiples of 8 up to {MAX_WIDTH}"));
            }
        }
        if !(scale > 0.0 && scale.is_finite()) {
            return fail(format!("the scale is {scale}, it must be above 0"));
        }
        // The kernels divide rows by the group with a multiplication that is exact up to here; grids end at 65535 in y and z.
        let group = heads / kv_heads;
        if seq_len.saturating_mul(group).saturating_mul(group) > i32::MAX as usize || batch.max(kv_heads) > 65535 {
            return fail(format!("batch {batch}, {seq_len} tokens, {heads} heads over {kv_heads} are too many for one launch"));
        }
        let (dropped_below, kept_scale) = match masks.dropout {
            Some(Dropout { p, .. }) if !(0.0..1.0).contains(&p) => {
                return fail(format!("dropout of {p}: at least 0 and less than 1"));
            }
            Some(Dropout { p, .. }) => ((p * 2f64.powi(32)).round() as u32, (1.0 / (1.0 - p)) as f32),
            None => (0, 1.0),
        };
        let defines = vec![
            ("HEAD_DIM", head_dim as i64),
            ("VALUE_DIM", value_dim as i64),
            ("DOCUMENTS", i64::from(masks.documents.is_some())),
            ("PADDING", i64::from(masks.padding.is_some())),
            ("DROPOUT", i64::from(masks.dropout.is_some())),
        ];
        let [batch, seq_len, heads, kv_heads] = [batch, seq_len, heads, kv_heads].map(|n| n as i32);
        Ok(Plan { batch, seq_len, heads, kv_heads, dropped_below, kept_scale, defines })
    }

    /// The pitch, if the matrix has `heads` heads of `width` for each token and rows that the kernels can read.
    fn pitch(self, name: &str, of: Heads<ElementSlice<'_>>, heads: usize, width: usize) -> Result<i32> {
        let Heads { data, pitch } = of;
        let (rows, cols) = (self.batch * self.seq_len, heads * width);
        let aligned = pitch.is_multiple_of(8) && data.view().address().is_multiple_of(ALIGNMENT as u64);
        if pitch < cols || !aligned || data.len() < (rows - 1) * pitch + cols {
            return Err(Error::device(format!(
                "attention: `{name}` has {} elements in rows of {pitch}, [{rows}, {cols}] with rows at multiples of {ALIGNMENT} bytes \
                 was expected",
                data.len()
            )));
        }
        i32::try_from(pitch).map_err(|_| Error::device(format!("attention: `{name}` has rows of {pitch} elements")))
    }

    /// An error unless `len` is that of one number for each head of each token.
    fn expect_rows(self, name: &str, len: usize) -> Result<()> {
        let expected = self.batch * self.seq_len * self.heads;
        if len == expected {
            Ok(())
        } else {
            Err(Error::device(format!("attention: `{name}` has {len} elements, expected {expected}")))
        }
    }

    /// Pitches of q, k and v.
    fn inputs(self, inputs: &Inputs<'_>) -> Result<[i32; 3]> {
        Ok([
            self.pitch("q", inputs.q, self.heads, self.head_dim)?,
            self.pitch("k", inputs.k, self.kv_heads, self.head_dim)?,
            self.pitch("v", inputs.v, self.kv_heads, self.value_dim)?,
        ])
    }

    /// The masks' pointers. Those of a mask that is not there are never read: they stand at the begin of q.
    fn masks<'a>(self, masks: &Masks<'a>, inputs: &Inputs<'a>) -> Result<Pointers<'a>> {
        let unread = inputs.q.data.view().narrow(..8)?;
        let per_token = |name: &str, given: Option<Slice<'a, i32>>| match given {
            Some(given) if given.len() != self.batch * self.seq_len => {
                let expected = self.batch * self.seq_len;
                Err(Error::device(format!("attention: `{name}` has {} elements, expected {expected}", given.len())))
            }
            Some(given) => Ok(given),
            None => unread.slice(),
        };
        let (key, sample_ids) = match masks.dropout {
            Some(Dropout { key, sample_ids, .. }) if key.len() != 1 || sample_ids.len() != self.batch => {
                let (keys, ids) = (key.len(), sample_ids.len());
                return Err(Error::device(format!("attention: {keys} keys and {ids} sample ids for a batch of {}", self.batch)));
            }
            Some(Dropout { key, sample_ids, .. }) => (key, sample_ids),
            None => (unread.slice()?, unread.slice()?),
        };
        Ok(Pointers {
            starts: per_token("document_starts", masks.documents.map(|documents| documents.starts))?,
            ends: per_token("document_ends", masks.documents.map(|documents| documents.ends))?,
            padding: per_token("attention_mask", masks.padding)?,
            key,
            sample_ids,
        })
    }
}

/// What the kernels take for masks.
struct Pointers<'a> {
    starts: Slice<'a, i32>,
    ends: Slice<'a, i32>,
    padding: Slice<'a, i32>,
    key: Slice<'a, u64>,
    sample_ids: Slice<'a, u64>,
}

/// Launches a kernel of one of two files with the same prototypes: that for f32, or the other.
macro_rules! launch {
    ($context:expr, $element:expr, $defines:expr, $file:ident :: $kernel:ident { $($fields:tt)* }) => {
        match $element {
            ElementType::F32 => $context.launch($defines, &crate::gpu::kernels::attention_f32::$kernel { $($fields)* }),
            ElementType::F16 | ElementType::BF16 => $context.launch($defines, &crate::gpu::kernels::$file::$kernel { $($fields)* }),
        }
    };
}

/// `o` `[B·T, heads·Dv]` and `lse` `[B, kv_heads, T, heads/kv_heads]` of the inputs; a row without keys gives 0 and +∞.
///
/// An error where sizes, pitches or addresses do not fit.
pub fn forward<'a>(
    context: &Context,
    extents: Extents,
    o: ElementSliceMut<'a>,
    lse: SliceMut<'a, f32>,
    inputs: Inputs<'a>,
    masks: Masks<'a>,
) -> Result<()> {
    let plan = extents.plan(&masks)?;
    let [q_pitch, k_pitch, v_pitch] = extents.inputs(&inputs)?;
    extents.pitch("o", Heads { data: o.as_slice(), pitch: extents.cols_out() }, extents.heads, extents.value_dim)?;
    extents.expect_rows("lse", lse.len())?;
    let Pointers { starts: document_starts, padding: attention_mask, key: philox_key, sample_ids, .. } =
        extents.masks(&masks, &inputs)?;
    let Inputs { q: Heads { data: q, .. }, k: Heads { data: k, .. }, v: Heads { data: v, .. } } = inputs;
    let Plan { batch, seq_len, heads, kv_heads, dropped_below, kept_scale, defines } = plan;
    let scale = extents.scale as f32;
    launch!(
        context,
        q.element(),
        &defines,
        attention_forward::AttentionForward {
            o,
            lse,
            q,
            k,
            v,
            document_starts,
            attention_mask,
            philox_key,
            sample_ids,
            B: batch,
            T: seq_len,
            heads,
            kv_heads,
            q_pitch,
            k_pitch,
            v_pitch,
            scale,
            dropped_below,
            kept_scale
        }
    )
}

/// The gradients of q, k and v.
///
/// An error where sizes, pitches or addresses do not fit.
pub fn backward<'a>(
    context: &Context,
    extents: Extents,
    to: Gradients<'a>,
    saved: Saved<'a>,
    inputs: Inputs<'a>,
    masks: Masks<'a>,
) -> Result<()> {
    let Extents { heads, kv_heads, head_dim, value_dim, .. } = extents;
    let plan = extents.plan(&masks)?;
    let [q_pitch, k_pitch, v_pitch] = extents.inputs(&inputs)?;
    let gradient = |of: Heads<ElementSliceMut<'a>>| Heads { data: of.data.as_slice(), pitch: of.pitch };
    let dq_pitch = extents.pitch("dq", gradient(to.dq), heads, head_dim)?;
    let dk_pitch = extents.pitch("dk", gradient(to.dk), kv_heads, head_dim)?;
    let dv_pitch = extents.pitch("dv", gradient(to.dv), kv_heads, value_dim)?;
    for (name, data) in [("o", saved.o), ("d_o", saved.d_o)] {
        extents.pitch(name, Heads { data, pitch: extents.cols_out() }, heads, value_dim)?;
    }
    extents.expect_rows("lse", saved.lse.len())?;
    extents.expect_rows("delta", to.delta.len())?;
    let Pointers { starts: document_starts, ends: document_ends, padding: attention_mask, key: philox_key, sample_ids } =
        extents.masks(&masks, &inputs)?;
    let Inputs { q: Heads { data: q, .. }, k: Heads { data: k, .. }, v: Heads { data: v, .. } } = inputs;
    let Gradients { dq: Heads { data: dq, .. }, dk: Heads { data: dk, .. }, dv: Heads { data: dv, .. }, delta } = to;
    let Saved { o, lse, d_o } = saved;
    let Plan { batch, seq_len, heads, kv_heads, dropped_below, kept_scale, mut defines } = plan;
    let (scale, element) = (extents.scale as f32, q.element());
    // The sums of dk and dv of wide heads do not fit in the registers of one launch: one for each, as the file says.
    let together = head_dim + value_dim <= if masks.dropout.is_some() { 256 } else { 320 };
    let common = defines.len();
    if !together && element != ElementType::F32 {
        defines.extend([("WITH_DK", 1), ("WITH_DV", 0)]);
    }
    launch!(
        context,
        element,
        &defines,
        attention_backward::AttentionBackwardQueries {
            dq,
            delta,
            q,
            k,
            v,
            o,
            d_o,
            lse,
            document_starts,
            attention_mask,
            philox_key,
            sample_ids,
            B: batch,
            T: seq_len,
            heads,
            kv_heads,
            dq_pitch,
            q_pitch,
            k_pitch,
            v_pitch,
            scale,
            dropped_below,
            kept_scale
        }
    )?;
    let delta = delta.as_slice();
    let keys = |defines: &[(&str, i64)]| {
        launch!(
            context,
            element,
            defines,
            attention_backward::AttentionBackwardKeys {
                dk,
                dv,
                q,
                k,
                v,
                d_o,
                lse,
                delta,
                document_ends,
                attention_mask,
                philox_key,
                sample_ids,
                B: batch,
                T: seq_len,
                heads,
                kv_heads,
                dk_pitch,
                dv_pitch,
                q_pitch,
                k_pitch,
                v_pitch,
                scale,
                dropped_below,
                kept_scale
            }
        )
    };
    keys(&defines)?;
    if defines.len() > common {
        defines.truncate(common);
        defines.extend([("WITH_DK", 0), ("WITH_DV", 1)]);
        keys(&defines)?;
    }
    Ok(())
}
