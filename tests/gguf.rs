//! GGUF files, read back by a reader of their own that follows the specification and knows nothing of the writer.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferromind::data::Tokenizer;
use ferromind::io::{FloatType, GgmlType, config_to_json, export_gguf, load_model, save_weights};
use ferromind::model::{Init, Model, ModelConfig};
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

struct Reader<'a>(&'a [u8], usize);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.0[self.1..self.1 + N].try_into().unwrap();
        self.1 += N;
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn text(&mut self) -> String {
        let len = self.u64() as usize;
        self.1 += len;
        String::from_utf8(self.0[self.1 - len..self.1].to_vec()).unwrap()
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            4 => Value::Number(f64::from(self.u32())),
            5 => Value::Number(f64::from(i32::from_le_bytes(self.bytes()))),
            6 => Value::Number(f64::from(f32::from_le_bytes(self.bytes()))),
            7 => Value::Bool(match self.bytes::<1>() {
                [0] => false,
                [1] => true,
                other => panic!("a bool of {other:?}"),
            }),
            8 => Value::Text(self.text()),
            9 => {
                let (kind, len) = (self.u32(), self.u64());
                Value::List((0..len).map(|_| self.value(kind)).collect())
            }
            other => panic!("a value of the type {other}"),
        }
    }
}

struct Tensor {
    /// The fastest extent first.
    dims: Vec<usize>,
    kind: u32,
    values: Vec<f64>,
    /// The largest error that the type allows, by value.
    bounds: Vec<f64>,
}

struct Gguf {
    keys: HashMap<String, Value>,
    tensors: HashMap<String, Tensor>,
}

fn half(bytes: &[u8]) -> f64 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64()
}

fn read(path: &Path) -> Gguf {
    let bytes = fs::read(path).unwrap();
    let mut reader = Reader(&bytes, 0);
    assert_eq!((&reader.bytes::<4>(), reader.u32()), (b"GGUF", 3));
    let (tensors, keys) = (reader.u64(), reader.u64());
    let read_key = |reader: &mut Reader<'_>| {
        let (key, kind) = (reader.text(), reader.u32());
        (key, reader.value(kind))
    };
    let keys: Vec<_> = (0..keys).map(|_| read_key(&mut reader)).collect();
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let name = reader.text();
            let dims: Vec<usize> = (0..reader.u32()).map(|_| reader.u64() as usize).collect();
            (name, dims, reader.u32(), reader.u64() as usize)
        })
        .collect();
    let start = reader.1.div_ceil(32) * 32;
    let mut end = start;
    let tensors = infos.into_iter().map(|(name, dims, kind, offset)| {
        assert!(offset % 32 == 0 && start + offset == end, "{name} lies where the last one ended");
        let len: usize = dims.iter().product();
        let data = &bytes[start + offset..];
        let (size, values): (usize, Vec<(f64, f64)>) = match kind {
            0 => {
                (4 * len, data[..4 * len].chunks(4).map(|x| (f64::from(f32::from_le_bytes(x.try_into().unwrap())), 0.0)).collect())
            }
            // Rounded to 11 bits, or to multiples of 2^-24.
            1 => (2 * len, data[..2 * len].chunks(2).map(half).map(|x| (x, (x.abs() / 2048.0).max(2f64.powi(-25)))).collect()),
            8 => {
                assert_eq!(dims[0] % 32, 0, "{name}: blocks do not cross rows");
                let size = len / 32 * 34;
                // Half a step, and the rounding of the scale itself at up to 127 steps.
                let block = |block: &[u8]| {
                    let scale = half(block);
                    let value = move |&q: &u8| (f64::from(q as i8) * scale, scale * (0.5 + 127.0 / 2048.0) + 1e-9);
                    block[2..].iter().map(value).collect::<Vec<_>>()
                };
                (size, data[..size].chunks(34).flat_map(block).collect())
            }
            other => panic!("{name} of the type {other}"),
        };
        end = start + offset + size.div_ceil(32) * 32;
        let (values, bounds) = values.into_iter().unzip();
        (name, Tensor { dims, kind, values, bounds })
    });
    let tensors = tensors.collect();
    assert_eq!(end, bytes.len(), "nothing follows the last tensor");
    assert_eq!(keys.len(), keys.iter().map(|(key, _)| key).collect::<std::collections::HashSet<_>>().len());
    Gguf { keys: keys.into_iter().collect(), tensors }
}

/// A model directory, and the model in it; its vocabulary is one larger than the tokenizer's.
fn directory(config: ModelConfig) -> (TempDir, PathBuf, Model) {
    let dir = TempDir::new().unwrap();
    let model = Model::random(config, Init::Normal, 0.02, 3).unwrap();
    let run = dir.path().join("tiny-run");
    fs::create_dir(&run).unwrap();
    save_weights(&run, model.params().layout(), model.params().flat().unwrap(), FloatType::F32, None).unwrap();
    fs::write(run.join("config.json"), config_to_json(model.config()).to_string()).unwrap();
    Tokenizer::bytes().unwrap().save(&run).unwrap();
    let loaded = load_model(&run).unwrap();
    (dir, run, loaded)
}

fn llama() -> ModelConfig {
    ModelConfig { intermediate_size: 48, max_position_embeddings: 64, ..ModelConfig::minimind2(64, 2, 260) }
}

fn qwen3() -> ModelConfig {
    let config = ModelConfig::minimind3(64, 2, 260);
    ModelConfig { intermediate_size: 96, tie_word_embeddings: false, max_position_embeddings: 64, ..config }
}

/// llama.cpp's names, and where the public names put a value of row r: rows of llama's q and k pair up neighbours.
fn expected(model: &Model, arch: &str) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let names = [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    let head_dim = model.config().gqa().unwrap().head_dim;
    let entries = model.params().layout().entries().iter();
    let tensor = |entry: &ferromind::params::Entry| {
        let values = &model.params().flat::<f32>().unwrap()[entry.range()];
        let cols = entry.shape.cols();
        let turned = arch == "llama" && (entry.name.contains("q_proj") || entry.name.contains("k_proj"));
        let row = |r: usize| {
            let (head, at) = (r / head_dim, r % head_dim);
            if turned { head * head_dim + at % 2 * (head_dim / 2) + at / 2 } else { r }
        };
        let rows = values.len() / cols;
        let values = (0..rows).flat_map(|r| values[row(r) * cols..][..cols].to_vec()).collect();
        let dims: Vec<usize> = entry.shape.dims().iter().rev().copied().collect();
        (names.iter().fold(entry.name.clone(), |name, (public, own)| name.replace(public, own)), (dims, values))
    };
    entries.map(tensor).collect()
}

#[test]
fn every_tensor_reads_back() {
    for (config, arch) in [(llama(), "llama"), (qwen3(), "qwen3")] {
        let (dir, run, model) = directory(config);
        let expected = expected(&model, arch);
        for ggml in [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0] {
            let out = dir.path().join(format!("{ggml}.gguf"));
            let narrower = export_gguf(&run, &out, ggml).unwrap();
            let gguf = read(&out);
            assert_eq!(gguf.tensors.len(), expected.len(), "{:?}", gguf.tensors.keys());
            for (name, (dims, values)) in &expected {
                let tensor = &gguf.tensors[name];
                assert_eq!(&tensor.dims, dims, "{name}");
                // Rows of 48 values are not whole blocks of 32.
                let kind = match (ggml, dims.len(), dims[0] % 32) {
                    (GgmlType::F32, ..) | (_, 1, _) => 0,
                    (GgmlType::F16, ..) | (_, _, 1..) => 1,
                    _ => 8,
                };
                assert_eq!((tensor.kind, narrower.contains(name)), (kind, ggml == GgmlType::Q8_0 && kind == 1), "{name} {ggml}");
                for (i, (&value, (&read, &bound))) in values.iter().zip(tensor.values.iter().zip(&tensor.bounds)).enumerate() {
                    assert!((f64::from(value) - read).abs() <= bound, "{arch} {ggml} {name}[{i}]: {value} and {read}");
                }
            }
            assert_eq!(narrower.is_empty(), arch == "qwen3" || ggml != GgmlType::Q8_0);
        }
    }
}

#[test]
fn the_keys_describe_model_and_tokenizer() {
    for (config, arch, kv_heads) in [(llama(), "llama", 2.0), (qwen3(), "qwen3", 4.0)] {
        let (dir, run, _) = directory(config.clone());
        let out = dir.path().join("model.gguf");
        export_gguf(&run, &out, GgmlType::Q8_0).unwrap();
        let keys = read(&out).keys;
        let text = |text: &str| Value::Text(text.into());
        let number = |key: &str| match keys[&format!("{arch}.{key}")] {
            Value::Number(number) => number,
            ref other => panic!("{key}: {other:?}"),
        };
        assert_eq!(keys["general.architecture"], text(arch));
        assert_eq!(keys["general.name"], text("tiny-run"));
        assert_eq!((&keys["general.file_type"], &keys["general.alignment"]), (&Value::Number(7.0), &Value::Number(32.0)));
        let sizes = ["block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"].map(number);
        assert_eq!(sizes, [2.0, 64.0, 64.0, config.intermediate_size as f64, 260.0]);
        assert_eq!(["attention.head_count", "attention.head_count_kv"].map(number), [8.0, kv_heads]);
        assert_eq!(["attention.key_length", "attention.value_length", "rope.dimension_count"].map(number), [8.0; 3]);
        assert_eq!(
            (number("rope.freq_base"), number("attention.layer_norm_rms_epsilon") as f32),
            (1e6, config.rms_norm_eps as f32)
        );

        let tokenizer = Tokenizer::load(&run).unwrap();
        let key = |key: &str| &keys[&format!("tokenizer.ggml.{key}")];
        let list = |value: &Value| match value {
            Value::List(values) => values.clone(),
            other => panic!("{other:?}"),
        };
        let (tokens, kinds) = (list(key("tokens")), list(key("token_type")));
        assert_eq!((tokens.len(), kinds.len()), (260, 260));
        assert!((0..259).all(|id| tokens[id as usize] == Value::Text(tokenizer.token(id).unwrap())));
        assert_eq!(tokens[259], text("[PAD259]"));
        let count = |kind: f64| kinds.iter().filter(|&found| *found == Value::Number(kind)).count();
        assert_eq!([1.0, 3.0, 4.0, 5.0].map(count), [256, 3, 0, 1]);
        assert_eq!((key("model"), key("pre"), list(key("merges"))), (&text("gpt2"), &text("gpt-2"), vec![]));
        let ids = ["bos_token_id", "eos_token_id", "padding_token_id"].map(|name| key(name).clone());
        assert_eq!(ids, [1.0, 2.0, 0.0].map(Value::Number));
        assert_eq!(key("add_bos_token"), &Value::Bool(false));
        assert!(!keys.contains_key("tokenizer.chat_template"));

        fs::write(run.join("chat_template.jinja"), "{{ messages }}").unwrap();
        let with_template = dir.path().join("template.gguf");
        export_gguf(&run, &with_template, GgmlType::F32).unwrap();
        assert_eq!(read(&with_template).keys["tokenizer.chat_template"], text("{{ messages }}"));
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let fails = |config: ModelConfig, phrases: &[&str]| {
        let (dir, run, _) = directory(config);
        let out = dir.path().join("model.gguf");
        let error = export_gguf(&run, &out, GgmlType::F32).unwrap_err().to_string();
        assert!(phrases.iter().all(|phrase| error.contains(phrase)), "{phrases:?}: {error}");
        assert!(!out.exists());
    };
    fails(llama().with_experts(), &["Llama with experts", "supported are dense ones of Llama"]);
    fails(qwen3().with_experts(), &["Qwen3 with experts", "supported are dense ones of Llama"]);
    fails(ModelConfig { hidden_act: "gelu".parse().unwrap(), ..llama() }, &["`hidden_act` gelu", "silu"]);
    fails(ModelConfig { vocab_size: 200, ..llama() }, &["tokenizer.json", "259 tokens", "200"]);

    let (dir, run, _) = directory(llama());
    let out = dir.path().join("model.gguf");
    export_gguf(&run, &out, GgmlType::F32).unwrap();
    assert!(export_gguf(&run, &out, GgmlType::F32).unwrap_err().to_string().contains("is there already"));
    fs::remove_file(run.join("tokenizer.json")).unwrap();
    let error = export_gguf(&run, &dir.path().join("other.gguf"), GgmlType::F32).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}
