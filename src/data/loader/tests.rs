use super::*;
use crate::data::Tokenizer;
use proptest::prelude::*;

const IGNORE: i32 = Batch::IGNORE;

fn shards(documents: &[String]) -> Arc<Shards> {
    Arc::new(Shards::from_documents(documents, &Tokenizer::bytes().unwrap()).unwrap())
}

fn dataset(documents: &[String], view: View, seq_len: usize) -> Dataset {
    Dataset::new(shards(documents), view, seq_len, 259).unwrap()
}

fn letters(lengths: &[usize]) -> Vec<String> {
    lengths.iter().enumerate().map(|(i, &n)| "abcdefgh"[i % 8..=i % 8].repeat(n)).collect()
}

/// The samples in the order of the shard, each as (ids, targets, document starts).
type Sample = (Vec<i32>, Vec<i32>, Vec<i32>);

fn samples(dataset: &Dataset) -> Vec<Sample> {
    let sample = |index| {
        let batch = dataset.sample(index).unwrap();
        (batch.input_ids, batch.targets, batch.document_starts)
    };
    (0..dataset.len()).map(sample).collect()
}

fn documents_of(documents: &[String]) -> Vec<Vec<i32>> {
    let bytes = Tokenizer::bytes().unwrap();
    let ids = |text: &String| -> Vec<i32> { bytes.encode(text).unwrap().into_iter().map(|id| id as i32).collect() };
    documents.iter().map(|text| [vec![1], ids(text), vec![2]].concat()).collect()
}

/// The packed rule token by token: (id, document, place in document) of the whole stream, then looked at in windows.
fn naive_packed(documents: &[String], seq_len: usize, held_out: usize) -> Vec<Sample> {
    let mut stream: Vec<(i32, usize)> =
        documents_of(documents).into_iter().enumerate().flat_map(|(d, ids)| ids.into_iter().map(move |id| (id, d))).collect();
    let total = (stream.len() - 1).div_ceil(seq_len);
    if held_out > 0 {
        stream.truncate((total - held_out) * seq_len);
    }
    let sample = |row: usize| {
        let mut sample = Sample::default();
        for position in row * seq_len..(row + 1) * seq_len {
            let here = stream.get(position);
            let target = stream.get(position + 1).filter(|next| here.is_some_and(|here| here.1 == next.1));
            let same = |p: &usize| stream.get(*p).map(|t| t.1) == here.map(|t| t.1);
            let start = (row * seq_len..=position).find(same).unwrap() - row * seq_len;
            sample.0.push(here.map_or(0, |t| t.0));
            sample.1.push(target.map_or(IGNORE, |t| t.0));
            sample.2.push(start as i32);
        }
        sample
    };
    (0..total - held_out).map(sample).collect()
}

fn naive_padded(documents: &[String], seq_len: usize) -> Vec<Sample> {
    let sample = |mut ids: Vec<i32>| {
        if ids.len() > seq_len {
            ids.truncate(seq_len - 1);
            ids.push(2);
        }
        let mut targets = ids[1..].to_vec();
        ids.resize(seq_len, 0);
        targets.resize(seq_len, IGNORE);
        (ids, targets, vec![0; seq_len])
    };
    documents_of(documents).into_iter().map(sample).collect()
}

#[test]
fn packed_by_hand() {
    let data = dataset(&letters(&[2, 1, 5]), View::Packed, 6);
    let [a, b, c] = ["a", "b", "c"].map(|t| Tokenizer::bytes().unwrap().encode(t).unwrap()[0] as i32);
    let expected: Vec<Sample> = vec![
        (vec![1, a, a, 2, 1, b], vec![a, a, 2, IGNORE, b, 2], vec![0, 0, 0, 0, 4, 4]),
        (vec![2, 1, c, c, c, c], vec![IGNORE, c, c, c, c, c], vec![0, 1, 1, 1, 1, 1]),
        (vec![c, 2, 0, 0, 0, 0], vec![2, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE], vec![0, 0, 2, 2, 2, 2]),
    ];
    assert_eq!(samples(&data), expected);
}

proptest! {
    #[test]
    fn packed_equals_the_rule(lengths in proptest::collection::vec(1usize..40, 1..12), seq_len in 1usize..20) {
        let documents = letters(&lengths);
        let data = dataset(&documents, View::Packed, seq_len);
        prop_assert_eq!(samples(&data), naive_packed(&documents, seq_len, 0));
    }

    #[test]
    fn padded_equals_the_rule(lengths in proptest::collection::vec(1usize..40, 1..12), seq_len in 3usize..30) {
        let documents = letters(&lengths);
        let data = dataset(&documents, View::Padded, seq_len);
        prop_assert_eq!(samples(&data), naive_padded(&documents, seq_len));
    }

    #[test]
    fn a_split_does_not_leak(lengths in proptest::collection::vec(8usize..40, 2..12), seq_len in 2usize..9, fraction in 0.01f64..0.99) {
        let documents = letters(&lengths);
        let whole = dataset(&documents, View::Packed, seq_len);
        let (train, held) = whole.clone().split(fraction).unwrap();
        prop_assert_eq!(samples(&train), naive_packed(&documents, seq_len, held.len() as usize));
        prop_assert_eq!(samples(&held), &naive_packed(&documents, seq_len, 0)[train.len() as usize..]);
        let wanted = whole.len() as f64 * fraction;
        prop_assert!((held.len() as f64 - wanted).abs() <= 1.0 && train.len() + held.len() == whole.len());
    }

    #[test]
    fn the_order_does_not_depend_on_the_batch(lengths in proptest::collection::vec(1usize..9, 8..30), size in 1usize..8, seed in any::<u64>()) {
        let data = dataset(&letters(&lengths), View::Padded, 8);
        let rows = |size: usize| {
            let loader = Loader::new(data.clone(), size, seed).unwrap();
            let mut rows = Vec::new();
            for index in 0..3 * loader.batches_per_epoch() {
                let batch = loader.batch(index).unwrap();
                assert_eq!((batch.input_ids.len(), batch.sample_ids.len()), (batch.rows * 8, batch.rows));
                assert_eq!(batch, loader.batch(index).unwrap());
                let ids = batch.input_ids.chunks(8).map(<[i32]>::to_vec);
                rows.extend(batch.sample_ids.iter().copied().zip(ids));
            }
            rows
        };
        let single = rows(1);
        prop_assert!(rows(size) == single);
        prop_assert!(single.iter().map(|row| row.0).eq(0..3 * data.len()));
        let mut expected: Vec<_> = samples(&data).into_iter().map(|sample| sample.0).collect();
        expected.sort_unstable();
        for epoch in single.chunks(data.len() as usize) {
            let mut seen: Vec<_> = epoch.iter().map(|row| row.1.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(&seen, &expected);
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let documents: Vec<String> = (0..50).map(|i| format!("{i}")).collect();
    let data = dataset(&documents, View::Padded, 5);
    let batch = |seed, index| Loader::new(data.clone(), 50, seed).unwrap().batch(index).unwrap().input_ids;
    assert_ne!(batch(1, 0), batch(1, 1));
    assert_ne!(batch(1, 0), batch(2, 0));
    assert_ne!(batch(1, 0), samples(&data).into_iter().flat_map(|sample| sample.0).collect::<Vec<_>>());
    assert_eq!(Loader::new(data, 50, 1).unwrap().batch(u64::MAX).unwrap().rows, 50);
}

#[test]
fn the_last_batch_is_shorter() {
    let loader = Loader::new(dataset(&letters(&[3; 7]), View::Padded, 5), 3, 0).unwrap();
    let rows: Vec<usize> = (0..6).map(|index| loader.batch(index).unwrap().rows).collect();
    assert_eq!((loader.batches_per_epoch(), rows), (3, vec![3, 3, 1, 3, 3, 1]));
}

#[test]
fn errors_name_the_numbers() {
    let documents = letters(&[3, 3]);
    let message = |result: Result<Dataset>| result.unwrap_err().to_string();
    let data = dataset(&documents, View::Padded, 5);
    let large = Loader::new(data.clone(), 3, 0).unwrap_err().to_string();
    assert!(large.contains("batch of 3") && large.contains("has 2 of 5 tokens"), "{large}");
    assert!(Loader::new(data.clone(), 0, 0).unwrap_err().to_string().contains("batch size is 0"));
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(data.clone().split(fraction).unwrap_err().to_string().contains("between 0 and 1"));
    }
    let one = dataset(&documents[..1], View::Padded, 5).split(0.5).unwrap_err().to_string();
    assert!(one.contains("1 sample of 5 tokens"), "{one}");
    assert!(message(Dataset::new(shards(&documents), View::Packed, 0, 259)).contains("at least 1"));
    assert!(message(Dataset::new(shards(&documents), View::Padded, 2, 259)).contains("at least 3"));

    let foreign = Dataset::new(shards(&documents), View::Packed, 4, 60).unwrap();
    let error = Loader::new(foreign, 2, 0).unwrap().batch(0).unwrap_err();
    assert!(matches!(error, Error::TokenId { vocab_size: 60, id } if id >= 60), "{error}");
    assert!(matches!(Dataset::new(shards(&documents), View::Packed, 4, 0).unwrap_err(), Error::TokenId { id: 0, .. }));
}
