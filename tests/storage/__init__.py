import pytest

# So that a failing rule shows the values it compared.
pytest.register_assert_rewrite(
    "kinto_attachment.storage.samples", "kinto_attachment.storage.testing"
)
