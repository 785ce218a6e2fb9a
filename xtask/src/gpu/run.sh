#!/bin/sh
# Runs this bundle on a machine with an NVIDIA driver and a Python that has torch 2.11 (CUDA).
#   sh run.sh [quick]      results go to $OUT, or ./out; $PEERS_BUDGET seconds for the peers (540)
# Written by `cargo xtask gpu bundle`.
cd "$(dirname "$0")" || exit 1
here=$(pwd)
out=${OUT:-$here/out}
mkdir -p "$out"
python=${PYTHON:-python3}
quick=$1
status=0

torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__) + "/lib")' 2>/dev/null)
[ -n "$torch" ] || echo "no torch in $python: the layers, training and the peers are left out"

summary=""
note() { summary="$summary
$1"; }
# step NAME SECONDS COMMAND...
step() {
  name=$1; limit=$2; shift 2
  echo "== $name"
  if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then verdict=ok; else verdict=FAILED; status=1; fi
  [ $verdict = ok ] && grep -q "^skipped: no CUDA driver" "$out/$name.log" && verdict="skipped (see its log)"
  tail -n 5 "$out/$name.log"
  note "$(printf '%-28s %s' "$name" "$verdict")"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1 | tee "$out/device.txt"
[ -s "$out/device.txt" ] || { echo "no nvidia-smi"; rm -f "$out/device.txt"; }
step cuda 300 ./cuda --nocapture

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck initcheck; do
    step "sanitizer_$tool" 120 compute-sanitizer --tool $tool --error-exitcode 9 ./cuda a_nan_stays
  done
  # It takes what `bar.arrive` and `bar.sync` order for unordered: told, but no failure.
  timeout 120 compute-sanitizer --tool racecheck ./cuda a_nan_stays >"$out/sanitizer_racecheck.log" 2>&1
  hazards=$(grep -o 'SUMMARY: .*' "$out/sanitizer_racecheck.log" | tail -n 1)
  note "$(printf '%-28s %s' sanitizer_racecheck "${hazards#SUMMARY: } (docs/kernels.md says why)")"
else
  note "compute-sanitizer              skipped: not installed"
fi

step kernels 400 ./gpu $([ "$quick" = quick ] && echo --quick)
grep -h '^{' "$out/kernels.log" >"$out/kernels.jsonl"

if [ -n "$torch" ]; then
  (
    LD_LIBRARY_PATH=$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    step nn_cuda 200 ./nn_cuda --nocapture
    for precision in f32 bf16; do
      rm -rf "$out/train_$precision"
      step "train_$precision" 200 ./gateloop train --out "$out/train_$precision" \
        --set 'data.source="synthetic:text"' --set train.device=\"cuda\" \
        --set train.precision=\"$precision\" --set train.steps=200 --set train.batch_size=32 \
        --set train.grad_accum=1 --set train.seq_len=1024 --set train.validate_every=0 \
        --set train.checkpoint_every=0 --set train.sample_every=0 --set train.log_every=50
      rate=$(grep -o '"tokens_per_s":[0-9]*' "$out/train_$precision/metrics.jsonl" | tail -n 1)
      note "  $precision $rate"
    done
    rm -rf "$out/train_8_heads"
    step train_8_heads 200 ./gateloop train --out "$out/train_8_heads" \
      --set 'data.source="synthetic:text"' --set train.device=\"cuda\" --set model.gate_loop_heads=8 \
      --set train.precision=\"bf16\" --set train.steps=100 --set train.batch_size=32 \
      --set train.grad_accum=1 --set train.seq_len=1024 --set train.validate_every=0 \
      --set train.checkpoint_every=0 --set train.sample_every=0 --set train.log_every=50
    note "  8 heads, bf16 $(grep -o '"tokens_per_s":[0-9]*' "$out/train_8_heads/metrics.jsonl" | tail -n 1)"
    step decode 60 ./gateloop generate --checkpoint "$out/train_f32" --prompt 'The ' --tokens 1000 --stats
    note "  $(grep -o '[0-9]* tokens/s.*a step' "$out/decode.log" | tail -n 1)"
    printf '%s\n%s' "$summary" "" >"$out/.summary"
    exit $status
  ) || status=1
  summary=$(cat "$out/.summary")
  budget=${PEERS_BUDGET:-540}
  step peers $((budget + 20)) "$python" peers/gpu_peers.py ${quick:+--quick} --budget "$budget" --out "$out/peers.jsonl"
fi

echo "== summary (logs in $out, what benches/record keeps in $out/record)$summary"
echo "== figures"
./gpu --report "$out" "$(date +%F)" || status=1
exit $status
