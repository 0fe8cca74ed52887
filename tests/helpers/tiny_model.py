"""A tiny random GPT-2 whose LayerNorms and biases do something, as a bridge in compatibility mode; and rows for it."""

import torch

BOS, PAD, VOCAB, CONTEXT, D_MODEL = 0, 1, 60, 16, 32


def tiny_model(folder, **more):
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from sae_tutorial import load_language_model

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=f"w{BOS}", eos_token=f"w{BOS}", pad_token=f"w{PAD}"
    )
    tokenizer.save_pretrained(folder)
    tokenizer.name_or_path = str(folder)
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": D_MODEL, "n_head": 4, "vocab_size": VOCAB, "n_positions": CONTEXT}
    hugging_face = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=BOS, eos_token_id=BOS, **more)).eval()
    for parameter in hugging_face.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return load_language_model(hugging_face, tokenizer=tokenizer, device="cpu")


def rows(n=11, padded=True):
    """Rows that begin with BOS; two of them are padded on the right, one to a single word."""
    tokens = torch.randint(2, VOCAB, (n, CONTEXT), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = BOS
    if padded:
        tokens[3, 9:] = PAD
        tokens[7, 2:] = PAD
    return tokens


def harvest(model, tokens, hook_name="blocks.1.hook_resid_post", **options):
    from sae_tutorial import ActivationStore

    return ActivationStore.harvest(model, tokens, hook_name, progress=False, **{"batch_size": 4, **options})


def exact_transcoder(model, layer):
    """Of a model whose MLPs have a ReLU: its features are the neurons, so nothing is left unexplained."""
    from sae_tutorial import SAEConfig, SparseAutoencoder

    transcoder = SparseAutoencoder(SAEConfig(*model.W_in[layer].shape, "relu", d_out=model.cfg.d_model))
    with torch.no_grad():
        transcoder.W_enc.copy_(model.W_in[layer])
        transcoder.b_enc.copy_(model.b_in[layer])
        transcoder.W_dec.copy_(model.W_out[layer])
        transcoder.b_dec.copy_(model.b_out[layer])
    transcoder.hook_name = f"blocks.{layer}.mlp.hook_in"
    transcoder.target_hook_name = f"blocks.{layer}.hook_mlp_out"
    return transcoder
