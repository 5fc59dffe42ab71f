from moe_cap.measure.engines.fake import ENGINE, ByteTokenizer
from tests.measure.engine_contract import LockStepContract, make_requests


class TestFakeEngine(LockStepContract):
    engine = ENGINE


def test_the_fake_clock_moves_by_its_rule(tiny_files, tmp_path) -> None:
    session = ENGINE.start(ENGINE.launch_spec(tiny_files, "bf16"), tmp_path / "log")
    steps = session.run(make_requests(2), 2).steps
    assert [round(step.step_s, 6) for step in steps] == [0.024, 0.011, 0.011, 0.011, 0.011]


def test_bytes_round_trip() -> None:
    text = "größer\n"
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text
