import pytest
import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return tiny_model.tiny_model(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokens():
    """37 rows that begin with BOS; two are padded on the right."""
    return tiny_model.rows(37)
