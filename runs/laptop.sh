#!/bin/sh
# From text to a tuned model on a laptop: 35 minutes on two cores of a server with AVX2.
#
#   sh runs/laptop.sh [--quick] [FOLDER]
#
# text -> corpus -> vocabulary -> shards -> a LLaMA of a few million parameters -> tuned -> evaluated. All of
# it goes into FOLDER (runs/laptop of the clone). The same command again goes on where it was left. --quick
# takes a minute and shows that everything works; the model learns next to nothing.
# PUNA names another puna, LANGUAGES other language packs ("" for none), PUNA_DATA more texts.
set -eu

quick=""
out=""
for word in "$@"; do
  case "$word" in
    --quick) quick="--quick" ;;
    -*) echo "usage: sh runs/laptop.sh [--quick] [FOLDER]" >&2; exit 2 ;;
    *) out="$word" ;;
  esac
done

here="$(cd "$(dirname "$0")/.." && pwd)"
case "$out" in
  "") out="$here/runs/laptop" ;;
  /*) ;;
  *) out="$(pwd)/$out" ;;
esac
cd "$here"

say() { printf '\n==> %s\n' "$1"; }

if [ -z "${PUNA:-}" ]; then
  if [ ! -x .venv/bin/puna ]; then
    say "installing puna into .venv"
    make .venv/.stamp-corpus
  fi
  PUNA=".venv/bin/puna"
fi
PUNA="$(command -v "$PUNA")"
python="$(dirname "$PUNA")/python"
mkdir -p "$out"

# What makes the quick run quick.
small_vocabulary="" small_model="" small_tuning=""
if [ -n "$quick" ]; then
  small_vocabulary="vocabulary.train.size=512"
  small_model="quick"
  small_tuning="quick"
fi

if [ ! -f "$out/text/sources.txt" ]; then
  say "texts from what is installed"
  if [ -z "$quick" ]; then
    for language in ${LANGUAGES-fr-FR}; do
      "$python" -m pip install --quiet --disable-pip-version-check --no-deps \
        "jupyterlab-language-pack-$language" ||
        echo "the language pack $language could not be installed: going on without it" >&2
    done
  fi
  "$python" runs/laptop_text.py "$out/text" $quick
fi

if [ ! -f "$out/corpus/manifest.json" ]; then
  say "a corpus of what is worth reading"
  set --
  while IFS= read -r line; do set -- "$@" "$line"; done < "$out/text/sources.txt"
  "$PUNA" curate recipes/curate-laptop.yaml "$@" --out "$out/corpus"
fi

if [ ! -f "$out/shards/manifest.json" ]; then
  say "a vocabulary, and the texts as tokens"
  set -- "corpus=$out/corpus"
  [ -z "$small_vocabulary" ] || set -- "$@" "$small_vocabulary"
  "$PUNA" tokenize recipes/tokenize-laptop.yaml "$@" --out "$out/shards"
fi

say "raising a model"
set -- "shards=$out/shards" "$("$python" runs/laptop_text.py --weights "$out/corpus")"
if [ -n "$small_model" ]; then
  set -- "$@" tokens=24_000 rows.row_tokens=128 rows.step_rows=8 rows.batch_rows=8 \
    evaluation.every_steps=10 evaluation.max_tokens=2000 samples.every_steps=10 \
    samples.max_new_tokens=16 train.checkpoint_every_steps=10 \
    "model={hidden_size: 64, layers: 2, heads: 4, kv_heads: 2, tie_embeddings: true}"
fi
"$PUNA" pretrain recipes/pretrain-laptop.yaml "$@" --out "$out/base"

say "what it writes"
"$PUNA" generate --model "$out/base" --quiet --max-tokens 80 --temperature 0.7 --top-p 0.95 \
  --seed 1 "The function" "class " "Return the"

say "tuning it to name the module that a function is from"
set -- "model=$out/base" "data.train=$out/text/questions.jsonl"
if [ -n "$small_tuning" ]; then
  set -- "$@" train.epochs=1 data.max_examples=64 data.max_test=8 evaluation.resamples=100
fi
"$PUNA" tune recipes/tune-laptop.yaml "$@" --out "$out/tuned"

say "judging it"
if [ ! -d "$out/judged" ]; then
  "$PUNA" evaluate "$out/tuned" --out "$out/judged"
fi
echo "Return the absolute value of a complex number." |
  "$PUNA" generate --model "$out/tuned" --quiet --max-tokens 12

say "done: the pages are report.html in corpus, base, tuned and judged of $out"
