"""One example of every verb, which stands under its `--help`."""

from __future__ import annotations

EXAMPLES = {
    "": "edgedit edit photo.jpg -d smile:2 -o smiling.png",
    "edit": "edgedit edit photo.jpg -d smile:2 -d age:-1 -o smiling.png",
    "batch": "edgedit batch photos edited --edits edits.yaml --batch 4",
    "reconstruct": "edgedit reconstruct photo.jpg -o seen.png",
    "studio": "edgedit studio --port 8090",
    "directions": "edgedit directions list -b BUNDLE",
    "directions list": "edgedit directions list -b BUNDLE",
    "directions fit": "edgedit directions fit --run RUN --faces FACES --recipe faces-1024-mobile "
    "--generator generator.safetensors --identity embedder.onnx --age-gender age.onnx --expression expression.onnx",
    "directions calibrate": "edgedit directions calibrate --run RUN --faces FACES --recipe faces-1024-mobile "
    "--generator generator.safetensors --identity embedder.onnx",
    "demo": "edgedit demo photo.jpg -o sheet.jpg",
    "info": "edgedit info -b BUNDLE --verify",
    "import": "edgedit import weights e4e e4e_ffhq_encode.pt -o e4e.safetensors",
    "import weights": "edgedit import weights mobilestylegan -o generator.safetensors",
    "import direction": "edgedit import direction interfacegan age.pt -o age.safetensors",
    "import direction interfacegan": "edgedit import direction interfacegan age.pt -o age.safetensors",
    "import direction ganspace": "edgedit import direction ganspace ffhq_pca.pt --recipe lipstick "
    "-o lipstick.safetensors",
    "import direction stylespace": "edgedit import direction stylespace S_mean_std --channels 6:501 "
    "-o smile.safetensors",
    "import direction styleclip": "edgedit import direction styleclip fs3.npy --text afro.npy --statistics S_mean_std "
    "--beta 0.1 --licence MIT -o afro.safetensors",
    "import mapper": "edgedit import mapper mohawk.pt --licence MIT -o mohawk.onnx",
    "train": "edgedit train e4e --run RUN --faces FACES --recipe faces-1024 --generator generator.safetensors "
    "--lpips lpips.safetensors --identity embedder.onnx",
    "evaluate": "edgedit evaluate --run RUN --faces FACES --recipe faces-1024 --generator generator.safetensors "
    "--lpips lpips.safetensors --identity embedder.onnx --age-gender age.onnx --expression expression.onnx",
    "export": "edgedit export --random demo-64 --graph reconstruct --max-faces 1 -o trial",
    "estimate": "edgedit estimate -b BUNDLE --gpu rtx4060 --precision fp16",
    "build": "edgedit build -b BUNDLE --runtime onnxruntime --precision fp32 --graph edit reconstruct",
    "refit": "edgedit refit OLD/engines/tensorrt-sm86-fp16 --from-bundle NEW",
    "inspect": "edgedit inspect BUNDLE --graph edit --gpu rtx4060 --html report.html",
    "serve": "edgedit serve up -b BUNDLE",
    "serve repo": "edgedit serve repo -b BUNDLE -o models",
    "serve up": "edgedit serve up -b BUNDLE",
    "serve setup": "edgedit serve setup",
    "serve gateway": "edgedit serve gateway --host 0.0.0.0 --api-keys keys",
    "serve key": "edgedit serve key phone --api-keys keys",
    "bench": "edgedit bench latency -b BUNDLE",
    "bench latency": "edgedit bench latency -b BUNDLE --json latency.json",
    "bench compare": "edgedit bench compare before.json after.json",
    "bench report": "edgedit bench report latency.json -o report.html",
    "bench count": "edgedit bench count --json counts.json",
    "bench time": "edgedit bench time --method fs sfe --passes 5 --json times.json",
    "bench serve": "edgedit bench serve -b BUNDLE -o rows.json",
    "pack": "edgedit pack -b BUNDLE --platform linux-aarch64 --python 3.12 -o PACK",
    "sign": "edgedit sign -b BUNDLE --private-key private.pem",
    "verify": "edgedit verify -b BUNDLE --public-key public.pem",
    "credentials": "edgedit credentials smiling.png",
    "doctor": "edgedit doctor --json machine.json",
    "completion": "edgedit completion bash",
}
"""Examples by the words of the verb, `edgedit` left out."""
