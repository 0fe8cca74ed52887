from sae_tutorial.course import environment


def remarks(table):
    return {row[0]: row[2] for row in table.rows}


def test_the_report_names_what_matters_and_is_honest_about_time():
    table = environment.environment(load_seconds=0.4)
    assert {"Python", "torch", "CPU cores", "GPU", "scale", "language model"} <= set(remarks(table))
    assert remarks(table)["language model"] == "fine"
    assert "slow" in remarks(environment.environment(load_seconds=60))["language model"]
    assert "language model" not in remarks(environment.environment())


def test_remarks_name_the_problem():
    assert "too old" in environment._python((3, 10))
    assert environment._python((3, 12)) == "fine"
    assert "twice" in environment._cores(1)
    assert environment._version("no-such-package-here") == "missing"
