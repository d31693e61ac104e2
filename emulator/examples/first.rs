use ptx_emulator::*;
use std::sync::Arc;
fn main() {
    let program = Arc::new(Program::parse(&std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap()).unwrap());
    let mut device = Device::new();
    let module = device.load(program).unwrap();
    let n: u64 = 1 << std::env::args().nth(2).map_or(20, |s| s.parse().unwrap());
    let f: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let y = device.allocate("y", 4 * n).unwrap();
    let a = device.allocate("a", 4 * n).unwrap();
    device.write(a, &f).unwrap();
    for checked in [true, false] {
        for workers in [1, 2] {
            for k in ["vadd", "rev"] {
                let mut args = Vec::new();
                args.extend(y.to_le_bytes());
                args.extend(a.to_le_bytes());
                if k == "vadd" {
                    args.extend(a.to_le_bytes());
                }
                args.extend((n as i32).to_le_bytes());
                let mut l = Launch::new([(n / 256) as u32, 1, 1], [256, 1, 1], args);
                l.checked = checked;
                l.workers = Some(workers);
                let t = std::time::Instant::now();
                let r = device.launch(&module, k, &l).unwrap();
                let s = t.elapsed().as_secs_f64();
                println!(
                    "{k} checked {checked} workers {workers} {:.3} G/s {} findings",
                    r.counters.thread_instructions() as f64 / s / 1e9,
                    r.findings.len()
                );
                for f in r.findings.iter().take(3) {
                    println!("{f}");
                }
            }
        }
    }
    let mut out = vec![0; 4 * n as usize];
    device.read(y, &mut out).unwrap();
    println!("{:?}", (0..4).map(|i| f32::from_le_bytes(out[i * 4..i * 4 + 4].try_into().unwrap())).collect::<Vec<_>>());
}
