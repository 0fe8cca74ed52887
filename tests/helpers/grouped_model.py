"""Tiny random models of other kinds than GPT-2: keys and values shared by heads, or no beginning-of-text token."""

from tiny_model import CONTEXT, D_MODEL, VOCAB


def words_tokenizer(folder, **special):
    """Words w0, w1, …, one token each, a space between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    tokenizer.save_pretrained(folder)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def grouped_model(folder):
    """A Llama: 4 heads, 2 of keys and values, rotary positions, RMSNorm."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sae_tutorial import load_language_model

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": D_MODEL, "intermediate_size": 64, "vocab_size": VOCAB}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    hugging_face = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()
    for parameter in hugging_face.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return load_language_model(hugging_face, tokenizer=words_tokenizer(folder, bos_token="w0"), device="cpu")


def capped_model(folder):
    """A Gemma 2, whose logits end in a soft cap."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from sae_tutorial import load_language_model

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": D_MODEL, "intermediate_size": 64, "vocab_size": VOCAB}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT}
    hugging_face = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, final_logit_softcapping=2.0)).eval()
    for parameter in hugging_face.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return load_language_model(hugging_face, tokenizer=words_tokenizer(folder, bos_token="w0"), device="cpu")


def model_without_bos(folder):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from sae_tutorial import load_language_model

    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": D_MODEL, "n_head": 4, "vocab_size": VOCAB, "n_positions": CONTEXT}
    hugging_face = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    return load_language_model(hugging_face, tokenizer=words_tokenizer(folder), device="cpu")
