import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import FUZZ, check_reader_survives
from hypothesis import given
from hypothesis import strategies as st
from reader_files import shfe_columns


def snapshots(**options):
    lots = np.cumsum(np.arange(40) % 4)
    buffer = io.BytesIO()
    pq.write_table(pa.table(shfe_columns(lots, 10.0 * np.cumsum(3000 * (np.arange(40) % 4)))), buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{"compression": "none", "use_dictionary": False}, {"compression": "zstd"}])
@FUZZ
@given(data=st.data())
def test_reader_shfe_when_the_file_is_damaged_then_it_is_read_whole_or_refused_by_name(tmp_path, options, data):
    check_reader_survives("shfe", {"rb_20250605.parquet": snapshots(**options)}, tmp=tmp_path, data=data)
