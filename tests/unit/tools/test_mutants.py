"""The planted faults keep up with the rules that they are planted in."""

from tools.mutants.catalogue import mutants


def test_each_fault_still_finds_its_place() -> None:
    rotten = [f"{mutant.file}: {mutant.name}" for mutant in mutants() if mutant.is_rotten]
    assert not rotten, f"write their old texts in tools/mutants/faults anew: {rotten}"


def test_no_two_faults_have_one_name() -> None:
    names = [(mutant.file, mutant.name) for mutant in mutants()]
    assert len(names) == len(set(names))
